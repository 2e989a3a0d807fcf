"""Commands that start a run or sweep again, with its original settings."""

import json
import shlex
import subprocess
from pathlib import Path

import pytest
from support import resolved

from dg_batchformer.cli.main import parser
from dg_batchformer.spec.launch import REMEMBERED, Launch
from dg_batchformer.spec.manifest import manifest_content, read_sweep_manifest
from dg_batchformer.spec.sweep import Row, SweepSpec
from dg_batchformer.storage.folders import State, SweepFolder
from dg_batchformer.sweep.expand import expand
from dg_batchformer.text.command import PROGRAM, command

SWEEP = SweepSpec("mine", ("PACS",), (Row("ERM", "ERM"),), trials=1)


def _parsed(line):
    assert line.startswith(PROGRAM)
    return parser().parse_args(shlex.split(line.removeprefix(PROGRAM)))


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"dataset": "-mine", "environments": ("-1", "-x", "b c"), "test_envs": ("-1", "-x"), "train_envs": ("b c",)},
        {"algorithm": "SWAD+BF", "hparams": {"lr": 1e-4}, "plugins": ("mine",), "seed": 3, "holdout_fraction": 0.5},
    ],
)
def test_the_command_of_a_run_selects_that_run(asked):
    spec = resolved(**asked)

    options = _parsed(command("train", **spec.options()))

    given = {name: getattr(options, name) for name in spec.options()}
    given["hparams"] = json.loads(given["hparams"])
    assert resolved(**given, environments=spec.environments).id == spec.id


def _continued(folder, launch):
    runs = expand(SWEEP)
    SweepFolder(folder).write(manifest_content(SWEEP, runs, launch and launch.kept(folder)))
    return read_sweep_manifest(SweepFolder(folder)).command(retry=[State.FAILED, State.DAMAGED])


def test_a_sweep_is_continued_by_the_file_and_the_options_that_it_was_started_with(tmp_path, monkeypatch):
    """From any folder, with paths relative to it."""
    monkeypatch.chdir(tmp_path)
    given = {"data_dir": Path("my data"), "keep": "final", "predictions": True, "slurm": ["gpus=1", "time=1:00"]}
    line = _continued(Path("results/mine"), Launch(Path("my sweeps/mine.yaml"), given))

    asked = _parsed(line)

    assert set(given) <= set(REMEMBERED)
    assert (asked.file, asked.retry, asked.results_dir) == (
        Path("my sweeps/mine.yaml"),
        ["failed", "damaged"],
        Path("results"),
    )
    assert {name: getattr(asked, name) for name in given} == given
    monkeypatch.chdir(tmp_path / "results" / "mine")
    asked = _parsed(read_sweep_manifest(SweepFolder(Path())).command())
    assert asked.file.resolve() == tmp_path / "my sweeps/mine.yaml"
    assert asked.data_dir.resolve() == tmp_path / "my data"
    assert asked.results_dir.resolve() == tmp_path / "results"


def test_a_sweep_folder_that_was_renamed_gets_its_name_back_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rename, _, continues = _continued(Path("results/other name"), Launch(Path("mine.yaml"))).partition(" && ")

    assert _parsed(continues).file == Path("mine.yaml")
    subprocess.run(rename, shell=True, check=True)
    assert (tmp_path / "results/mine/sweep.json").exists()


@pytest.mark.parametrize(
    "content",
    [None, [], {}, {"file": 3}, {"file": "a\nb"}, {"file": "a"}, {"file": "a", "options": {"results_dir": "x"}},
     {"file": "a", "options": {"keep": {}}}, {"file": "a", "options": {"slurm": ["\x1b[2J"]}}],
)  # fmt: skip
def test_launch_files_of_unknown_origin_are_ignored(content, tmp_path):
    assert Launch.read(content, tmp_path) is None


def test_a_sweep_of_an_earlier_version_is_continued_from_the_default_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    asked = _parsed(_continued(Path("results/mine"), None))

    assert (asked.file, asked.data_dir) == (Path("sweeps/mine.yaml"), Path("DATA"))
