"""The screen of ``watch``, in 80 columns."""

import tarfile
from pathlib import Path

import pytest

from dg_batchformer.cli.main import main
from dg_batchformer.cli.watch import screen
from dg_batchformer.spec.manifest import read_sweep_manifest
from dg_batchformer.storage.folders import State, SweepFolder
from dg_batchformer.sweep.plan import States, run_states

EARLIER = Path(__file__).parents[1] / "data" / "earlier" / "results.tar.gz"


@pytest.fixture
def folder(tmp_path):
    with tarfile.open(EARLIER) as archive:
        archive.extractall(tmp_path, filter="data")
    return SweepFolder(tmp_path / "earlier")


def test_the_screen_shows_rows_running_runs_and_failures_in_80_columns(folder):
    manifest = read_sweep_manifest(folder)
    states = run_states(folder, manifest.runs)
    first, second = manifest.runs[0], manifest.runs[1]
    (folder.run(second.spec.id).path / "error.txt").write_text("a reason\n\n" + "details\n")
    now = States({**states.of, first.spec.id: State.RUNNING, second.spec.id: State.FAILED}, states.finals, undeclared=0)

    shown = screen(folder, manifest, now)

    assert max(map(len, shown.splitlines())) <= 80
    assert "30/32" in shown
    assert f"ERM {first.spec.environment_names(first.spec.test_envs)} 0: step" in shown
    assert f"{second.name}: a reason" in shown
    diverged = States({**states.of, first.spec.id: State.DIVERGED}, states.finals, undeclared=0)
    assert f"{first.name}: diverged" in screen(folder, manifest, diverged)
    row = next(line for line in shown.splitlines() if line.startswith("SWAD and BF"))
    assert len(row.split()) == 7


def test_without_a_terminal_the_screen_is_printed_once(folder, capsys):
    assert main(["watch", str(folder.path)]) == 0

    assert "32/32" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["watch", "status"])
def test_packed_records_have_nothing_to_follow(folder, tmp_path, capsys, verb):
    packed = tmp_path / "packed"
    packed.mkdir()
    assert main(["pack", str(folder.path)]) == 0
    (folder.path / "records.parquet").rename(packed / "records.parquet")

    assert main([verb, str(packed)]) == 2

    assert "holds packed records without run folders" in capsys.readouterr().err
