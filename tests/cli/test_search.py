"""One sweep command searches, chooses, and trains the winners."""

import pytest

from dg_batchformer.cli import sweep
from dg_batchformer.cli.main import main
from dg_batchformer.report.provenance import costs
from dg_batchformer.report.summary import asked
from dg_batchformer.results.collect import collect
from dg_batchformer.results.winners import read_winners
from dg_batchformer.spec.manifest import read_sweep_manifest
from dg_batchformer.storage.folders import State, SweepFolder
from dg_batchformer.sweep.plan import run_states

SWEEP = """
datasets: [Toy]
algorithms: [ERM]
protocol: quick
test_envs: [A]
steps: 2
hparams: {mlp_width: 8}
"""


class Killed(BaseException):
    """A kill between the two phases of a search."""


@pytest.mark.parametrize("key", ["search: {draws: 2, on: [0], repeat: 1}"])
def test_a_search_that_is_killed_between_its_phases_continues_with_the_winners(tmp_path, capsys, monkeypatch, key):
    file = tmp_path / "mine.yaml"
    file.write_text(f"{SWEEP}{key}\n")
    folder = SweepFolder(tmp_path / "results" / "mine")
    command = ["sweep", str(file), "--devices", "cpu", "--results_dir", str(tmp_path / "results")]

    def kill(folder):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(sweep, "declare_winners", kill)
        with pytest.raises(Killed):
            main(command)
    assert "after the search: 1 run of its winners, on trial 1" in capsys.readouterr().out
    assert not folder.winners_file.exists()
    assert main(command) == 0

    assert "2 runs: 2 done. To start: 0." in (out := capsys.readouterr().out)
    assert "chose 1 winner by training-domain selection" in out
    runs = read_sweep_manifest(folder).runs
    assert [(run.spec.trial_seed, run.searches) for run in runs] == [(0, True), (0, True), (1, False)]
    assert set(run_states(folder, runs).of.values()) == {State.DONE}
    assert runs[-1].winner == read_winners(folder)[0].run
    assert main(["tables", str(folder.path)]) == 0
    assert "among 2 candidates on trial 0" in capsys.readouterr().out
    collection = collect([folder.path], search=False)
    assert [run.trial_seed for run in collection.runs] == [1]
    assert [run.trial_seed for run in collection.runs_and_searches] == [1, 0, 0]  # what its row cost
    [row, *_] = costs(collection).values()
    assert row.runs == 3
    assert ("hparams tried", "2") in asked(collection)
    assert ("runs", "1, and 2 of the search") in asked(collection)

    later = tmp_path / "later.yaml"
    later.write_text(f"{SWEEP}trials: [0, 5]\nhparams_from: {folder.path}\n")
    assert main(["sweep", str(later), "--results_dir", str(tmp_path / "results"), "--launcher", "dry_run"]) == 0
    assert "chose hparams on trial 0, which this sweep trains too; give other trials" in capsys.readouterr().out
    assert not (tmp_path / "results" / "later").exists()
