"""Scripts for sbatch: any names, settings and paths are data, never commands."""

import os
import pickle
import re
import shlex
import subprocess
from dataclasses import replace

import pytest

from dg_batchformer.errors import InputError
from dg_batchformer.results.search import declare_winners
from dg_batchformer.spec.options import RunOptions
from dg_batchformer.spec.race import Race
from dg_batchformer.spec.sweep import Row, SweepSpec
from dg_batchformer.storage.folders import SweepFolder
from dg_batchformer.sweep.cluster import Cluster, load_cluster
from dg_batchformer.sweep.expand import expand
from dg_batchformer.sweep.jobs import Job, log_jobs, read_jobs
from dg_batchformer.sweep.launchers import slurm
from dg_batchformer.sweep.launchers.slurm import SlurmLauncher

SWEEP = SweepSpec("tiny", ("Toy",), (Row("ERM", "ERM"),), "quick", 2, 1, ("A",), steps=3)
CLUSTER = Cluster()
COMMANDS = {
    "scontrol": 'echo "MaxArraySize = 1001"',
    "sbatch": 'cp "$1" "$KEPT/script.sh"; echo "Submitted batch job 7"',
    "srun": 'printf "%s\\0" "$@" > "$KEPT/arguments"; printf %s "$PYTHONPATH" > "$KEPT/path"',
    "touch": 'echo ran >> "$KEPT/ran"',
}


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Put fake SLURM commands on the path that store their input; return the folder."""
    (programs := tmp_path / "programs").mkdir()
    (kept := tmp_path / "kept").mkdir()
    for name, text in COMMANDS.items():
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("KEPT", str(kept))
    return kept


def _submit(path, settings=CLUSTER):
    folder = SweepFolder(path)
    folder.slurm.mkdir(parents=True)
    return [job for jobs in SlurmLauncher(folder, RunOptions(), settings, 1).submit(expand(SWEEP)) for job in jobs]


def _parameters(script):
    """Return the options of a script as sbatch reads them."""
    found = {}
    for line in script.splitlines():
        if line.startswith("#SBATCH "):
            [option] = shlex.split(line.removeprefix("#SBATCH "), comments=True)
            name, _, value = option.partition("=")
            found[name] = value
    return found


@pytest.mark.parametrize(
    "name",
    ["plain", "a b", 'it\'s "so"', "$(touch x)", "`touch x`", "50%", "100% u %u", "-x", "#x", "a;touch x", "~", "é 晴"],
)
def test_names_and_paths_reach_slurm_unchanged(cluster, tmp_path, name):
    jobs = _submit(path := tmp_path / name)

    script = (cluster / "script.sh").read_text()
    subprocess.run(["bash", str(cluster / "script.sh")], check=True, cwd=tmp_path)
    arguments = (cluster / "arguments").read_text().split("\0")
    told = str(path).replace("%", "%%")
    assert [job.job_id for job in jobs] == ["7_0", "7_1"]
    assert _parameters(script)["--job-name"] == f"{name}[1-2]"
    assert _parameters(script)["--output"] == f"{told}/slurm/%A_%a_0_log.out"
    assert f"--output={told}/slurm/%A_%a_%t_log.out" in arguments
    assert str(path / "slurm") in arguments
    assert not (cluster / "ran").exists()


@pytest.mark.parametrize("name", ["a\ntouch x", "a\\b", "%j", "run%A", "\x1b[1m"])
def test_paths_that_slurm_would_misread_are_refused(cluster, tmp_path, name):
    with pytest.raises(InputError, match=r"cannot be used for SLURM logs"):
        _submit(tmp_path / name)
    assert not (cluster / "script.sh").exists()


def test_winners_of_a_search_start_when_all_its_jobs_have_ended(cluster, tmp_path):
    folder = SweepFolder(tmp_path / "tiny")
    folder.slurm.mkdir(parents=True)
    searching = [Job("5_0", ["a"]), Job("5_1", ["b"]), Job("6", ["c"])]

    jobs = SlurmLauncher(folder, RunOptions(), CLUSTER, 2).submit_follow_up(declare_winners, 3, after=searching)

    assert [(job.job_id, job.is_follow_up) for job in jobs] == [("7_0", True), ("7_1", True)]
    assert _parameters((cluster / "script.sh").read_text())["--dependency"] == "afterany:5:6"
    log_jobs(folder, jobs)
    assert read_jobs(folder) == jobs


def test_every_task_of_a_follow_up_trains_its_share_of_the_winners(tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(slurm.LocalLauncher, "launch", lambda self, runs: trained.append(runs) or True)
    runs = expand(SWEEP)
    settings = {"options": RunOptions(), "devices": ["cpu"], "threads": 1, "seconds": 5.0}

    for task in range(2):
        slurm.FollowUp(tmp_path, lambda folder: runs, task, 2, **settings)()
    slurm.FollowUp(tmp_path, lambda folder: [], 0, 2, **settings)()  # the search is unfinished

    assert trained == [runs[0::2], runs[1::2], []]


def test_a_task_lets_its_runs_race_and_leaves_those_that_are_out(tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(slurm.LocalLauncher, "launch", lambda self, runs: trained.append(runs) or True)
    settings = {"options": RunOptions(), "devices": ["cpu"], "threads": 1, "seconds": 5.0}
    raced = expand(replace(SWEEP, draws=3, trials=1, race=Race((0,))))
    stopped = SweepFolder(tmp_path).run(raced[0].spec.id)
    stopped.path.mkdir(parents=True)
    stopped.race_file.write_text("{}")

    for runs in (raced, expand(replace(SWEEP, draws=3, trials=1))):
        pickle.loads(pickle.dumps(slurm.Chunk(tmp_path, runs, **settings)))()

    ids = tuple(run.spec.id for run in raced)
    assert [tuple(run.spec.id for run in runs) for runs in trained] == [ids[1:], ids]
    assert {run.bracket.runs for run in trained[0]} == {ids}


@pytest.mark.parametrize("value", ["$(touch x)", "a;touch x", "it's", "a b", "%j"])
def test_settings_reach_slurm_unchanged(cluster, tmp_path, value):
    settings = load_cluster([f"{name}={value}" for name in ("partition", "account", "qos", "constraint", "mem")], None)

    _submit(tmp_path / "tiny", settings)

    parameters = _parameters((cluster / "script.sh").read_text())
    assert {parameters[f"--{name}"] for name in ("partition", "account", "qos", "constraint", "mem")} == {value}
    subprocess.run(["bash", str(cluster / "script.sh")], check=True, cwd=tmp_path)
    assert not (cluster / "ran").exists()


@pytest.mark.parametrize("name", ["partition", "account", "qos", "constraint", "mem"])
def test_settings_of_several_lines_are_refused(name):
    with pytest.raises(InputError, match=rf"slurm {name} is 'a\\ntouch x', but must be one printable line"):
        load_cluster([f"{name}=a\ntouch x"], None)


def test_the_path_of_this_package_is_data_too(cluster, tmp_path, monkeypatch):
    root = tmp_path / "it's $(touch x)"
    monkeypatch.setattr(slurm, "_ROOT", root)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    _submit(tmp_path / "tiny")

    subprocess.run(["bash", str(cluster / "script.sh")], check=True, cwd=tmp_path)

    assert (cluster / "path").read_text() == str(root)
    assert not (cluster / "ran").exists()
    assert not re.search(r"^touch", (cluster / "script.sh").read_text(), re.MULTILINE)
