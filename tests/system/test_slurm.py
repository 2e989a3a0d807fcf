"""A real SLURM of four nodes: its results equal those of a local launch despite disturbances."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dg_batchformer.spec.manifest import read_sweep_manifest
from dg_batchformer.spec.sweep_file import load_sweep
from dg_batchformer.storage.folders import State, SweepFolder
from dg_batchformer.sweep.expand import expand
from dg_batchformer.sweep.jobs import queued_states, read_jobs

pytestmark = pytest.mark.system
ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "tools" / "local_slurm.sh"
PATIENCE = 400  # seconds; tests must pass on busy machines
VOLATILE = ("step_time", "mem_gb")
SWEEP = """
datasets: [Toy]
algorithms: [ERM, SWAD+BF]
protocol: quick
trials: {trials}
test_envs: {envs}
steps: {steps}
checkpoint_freq: 50
hparams: {{mlp_width: 16, batch_size: 8}}
"""
TASKS = ("--slurm", "cpus=1", "mem=1G", "time=30", "signal=30")


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory):
    """Start a cluster, install it if missing, and stop it."""
    if os.geteuid() != 0:
        pytest.skip("slurmd needs root to start jobs as their users")
    state = tmp_path_factory.mktemp("slurm") / "s"
    settings = {"LOCAL_SLURM_DIR": str(state), "LOCAL_SLURM_PORT": "26817", "LOCAL_SLURM_NODES": "4"}
    environment = {**os.environ, **settings}
    subprocess.run([CLUSTER, "start"], check=True, env=environment)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(state / "etc" / "slurm.conf"))
        yield state
    subprocess.run([CLUSTER, "stop"], check=True, env=environment)


class Sweep:
    """A sweep file in a folder of its own."""

    def __init__(self, path, *, trials=1, envs="[A, B]", steps=201, text=SWEEP):
        path.mkdir(parents=True, exist_ok=True)
        self.file = path / "tiny.yaml"
        self.file.write_text(text.format(trials=trials, envs=envs, steps=steps))
        self.folder = SweepFolder(path / "results" / "tiny")
        self.specs = [run.spec for run in expand(load_sweep(self.file))]

    def start(self, *more):
        command = [sys.executable, "-m", "dg_batchformer", "sweep", str(self.file), *more]
        command += ["--results_dir", str(self.folder.path.parent)]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run(self, *more):
        process = self.start(*more)
        output = process.communicate(timeout=PATIENCE)[0]
        assert process.returncode == 0, output
        return output

    def submit(self, *more):
        return self.run("--launcher", "slurm", *TASKS, *more)

    def local(self):
        """Train the same runs locally with the same number of threads."""
        return self.run("--devices", "cpu,cpu", "--threads", "1")

    def verb(self, *words):
        command = [sys.executable, "-m", "dg_batchformer", *words]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    def states(self):
        return [self.folder.run(spec.id).state() for spec in self.specs]

    def records(self):
        return [_records(self.folder.run(spec.id)) for spec in self.specs]

    def recorded(self):
        """Return steps and training losses from the records of every run."""
        return [{line["step"]: pytest.approx(line["loss"]) for line in run if "loss" in line} for run in self.records()]

    def curves(self):
        """Return the same from the event files of TensorBoard."""
        return [_curve(self.folder.path, spec.id) for spec in self.specs]

    def starts(self):
        """Return how often each run started or resumed."""
        logs = [self.folder.run(spec.id).log_file for spec in self.specs]
        return [log.read_text().count("from step") if log.exists() else 0 for log in logs]

    def wait(self, condition, seconds=PATIENCE):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, (self.states(), self.logs())
            time.sleep(0.5)

    def wait_until_done(self, seconds=PATIENCE):
        self.wait(lambda: all(state is State.DONE for state in self.states()), seconds)

    def wait_until_under_way(self, spec=None):
        """Wait until a run has records but is not done; return its lock's owner."""
        folder = self.folder.run((spec or self.specs[0]).id)
        self.wait(lambda: folder.records_file.exists() and folder.state() is State.RUNNING)
        return json.loads(folder.lock_file.read_text())

    def logs(self):
        return [file.read_text()[-3000:] for file in self.folder.slurm.glob("*.out")]


def _records(folder):
    lines = folder.records_file.read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in VOLATILE} for line in lines]


def _curve(folder, run_id):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    [path] = folder.glob(f"tensorboard/*/*/*-{run_id[:8]}")
    reader = EventAccumulator(str(path), purge_orphaned_data=True).Reload()
    points = [(point.step, point.value) for point in reader.Scalars("loss")]
    assert len(points) == len(dict(points)), "no step is drawn twice"
    return dict(points)


def _same_as_local(sweep, path):
    local = Sweep(path, text=sweep.file.read_text().replace("{", "{{").replace("}", "}}"))
    local.local()
    assert sweep.records() == local.records()
    tables = [one.verb("tables", str(one.folder.path), "--format", "csv").stdout for one in (sweep, local)]
    assert tables[0] == tables[1]
    assert "SWAD+BF" in tables[0]


def test_forty_runs_over_four_nodes_equal_the_same_sweep_run_locally(tmp_path):
    sweep = Sweep(tmp_path / "cluster", trials=5, envs="all")

    output = sweep.submit("--runs_per_task", "10")

    assert "submitted 4 tasks of up to 10 runs; already queued: 0 tasks" in output
    again = sweep.submit()
    assert "0 tasks" in again or "To start: 0" in again, "queued runs are not submitted twice"
    sweep.wait_until_done()
    assert len(sweep.specs) == 40
    assert sweep.starts() == [1] * 40
    names = subprocess.run(["sacct", "-X", "-n", "-P", "-o", "JobName"], capture_output=True, text=True).stdout
    assert "tiny[1-4]" in names
    _same_as_local(sweep, tmp_path / "local")


def test_winners_of_a_search_are_trained_by_jobs_that_wait_for_it_as_in_one_local_command(tmp_path):
    text = SWEEP.replace("trials: {trials}", "search: {{draws: 3, on: [0], repeat: 2}}")
    sweep, local = Sweep(tmp_path / "cluster", text=text), Sweep(tmp_path / "local", text=text)

    output = sweep.submit("--runs_per_task", "3")
    again = sweep.submit("--runs_per_task", "3")

    assert "after the search: 8 runs of its winners, on trials 1, 2" in output
    assert "submitted 7 tasks of up to 3 runs" in output
    assert "submitted 0 tasks" in again
    sweep.wait(sweep.folder.winners_file.exists)
    local.local()
    runs = read_sweep_manifest(local.folder).runs
    sweep.wait(lambda: all(sweep.folder.run(run.spec.id).state() is State.DONE for run in runs))
    assert (sweep.folder.winners_file.read_text(), len(runs)) == (local.folder.winners_file.read_text(), 12 + 8)
    assert [run.spec.id for run in read_sweep_manifest(sweep.folder).runs] == [run.spec.id for run in runs]
    tables = [one.verb("tables", str(one.folder.path), "--format", "csv").stdout for one in (sweep, local)]
    assert tables[0] == tables[1]


def test_a_time_limit_too_short_for_a_chunk_requeues_it_until_all_is_done(tmp_path):
    sweep = Sweep(tmp_path / "cluster", steps=24_001)

    sweep.submit("--runs_per_task", "4", "--slurm", "time=1", "signal=15", "cpus=1", "mem=1G")
    sweep.wait_until_done(3 * PATIENCE)  # more than a minute of training anywhere, so several requeues on slow machines

    assert "Requeued job" in "".join(sweep.logs())
    assert max(sweep.starts()) > 1, "a run resumed in a later start of its task"
    _same_as_local(sweep, tmp_path / "local")


def test_requeued_cancelled_and_killed_tasks_lose_no_results(tmp_path):
    sweep = Sweep(tmp_path / "cluster", envs="[A]", steps=6_001)
    sweep.submit("--runs_per_task", "2", "--log", "tensorboard")
    owner = sweep.wait_until_under_way()
    [job] = read_jobs(sweep.folder)

    os.kill(owner["pid"], signal.SIGKILL)  # the worker alone: the task replaces it
    sweep.wait(lambda: sweep.starts()[0] == 2)
    sweep.wait_until_under_way()
    subprocess.run(["scontrol", "requeue", job.job_id], check=True)
    sweep.wait(lambda: sweep.starts()[0] >= 3)
    sweep.wait_until_under_way(sweep.specs[0])
    cancelled = sweep.verb("cancel", str(sweep.folder.path))

    assert "1 SLURM tasks" in cancelled.stdout, cancelled
    sweep.wait(lambda: not queued_states([job]))
    assert State.RUNNING not in sweep.states()
    assert State.INTERRUPTED in sweep.states()
    status = sweep.verb("status", str(sweep.folder.path)).stdout
    assert "SLURM: no task is left" in status
    assert re.search(r"left behind: ERM on Toy/A, trial 0 .*: its job", status)
    sweep.submit("--runs_per_task", "2", "--log", "tensorboard")
    sweep.wait_until_done()
    assert sweep.curves() == sweep.recorded()
    _same_as_local(sweep, tmp_path / "local")


def test_a_node_that_dies_gives_its_tasks_to_others(tmp_path, cluster):
    sweep = Sweep(tmp_path / "cluster", envs="[A]", steps=6_001)
    sweep.submit("--runs_per_task", "2")
    owner = sweep.wait_until_under_way()
    [job] = read_jobs(sweep.folder)
    node = subprocess.run(["squeue", "-h", "-j", job.job_id, "-o", "%N"], capture_output=True, text=True).stdout.strip()

    daemon = int((cluster / "run" / f"slurmd-{node}.pid").read_text())
    os.kill(daemon, signal.SIGKILL)
    os.kill(owner["pid"], signal.SIGKILL)  # as its node takes it along
    subprocess.run(["scontrol", "update", f"nodename={node}", "state=down", "reason=killed"], check=True)
    sweep.wait_until_done()

    assert sweep.starts()[0] > 1
    _same_as_local(sweep, tmp_path / "local")


def test_two_submissions_at_once_train_each_run_once_and_a_failing_run_takes_no_other_along(tmp_path):
    text = SWEEP.replace("algorithms: [ERM, SWAD+BF]", "algorithms: [ERM, SWAD+BF, SWAD]")
    sweep = Sweep(tmp_path / "cluster", text=text)
    broken = sweep.folder.run(sweep.specs[0].id)
    broken.records_file.mkdir(parents=True)  # cannot be written to

    calls = [sweep.start("--launcher", "slurm", *TASKS, "--runs_per_task", "3") for _ in range(2)]
    outputs = [call.communicate(timeout=PATIENCE)[0] for call in calls]
    done = [State.FAILED, *[State.DONE] * (len(sweep.specs) - 1)]
    sweep.wait(lambda: sweep.states() == done)

    assert sum("submitted 2 tasks of up to 3 runs; already queued: 0 tasks" in output for output in outputs) == 1, (
        outputs
    )
    assert sum("0 tasks of up to" in output for output in outputs) == 1, outputs
    assert sweep.starts()[1:] == [1] * (len(sweep.specs) - 1)
    status = sweep.verb("status", str(sweep.folder.path))
    assert status.returncode == 1
    assert "IsADirectoryError" in status.stdout
    broken.records_file.rmdir()
    assert "0 tasks of up to" in sweep.submit(), "failed runs are tried again only when asked"
    assert "1 task of up to" in sweep.submit("--retry", "failed")
    sweep.wait_until_done()


def test_a_task_without_its_gpu_says_so_and_fails_no_run(tmp_path):
    sweep = Sweep(tmp_path / "cluster", envs="[A]")

    sweep.submit("--slurm", "gpus=1", "cpus=1", "mem=1G", "--runs_per_task", "2")  # these GPUs are null devices
    sweep.wait(lambda: any("no CUDA devices found" in log for log in sweep.logs()))
    sweep.wait(lambda: not queued_states(read_jobs(sweep.folder)))

    assert sweep.states() == [State.DUE, State.DUE]


def test_errors_of_slurm_are_reported_in_one_sentence(tmp_path):
    sweep = Sweep(tmp_path)

    refused = sweep.start("--launcher", "slurm", "--slurm", "partition=nowhere").communicate(timeout=PATIENCE)[0]

    assert "error: SLURM refused the sweep after 0 tasks" in refused
    assert "nowhere" in refused or "invalid partition" in refused.lower()
    assert "Traceback" not in refused
