"""Searches: winners are chosen by validation, written down, and repeated on further trials."""

import json
from dataclasses import replace

import pytest
from sweep_folders import write_sweep

from dg_batchformer.cli.main import main
from dg_batchformer.errors import InputError
from dg_batchformer.results.our_sweep import pack
from dg_batchformer.results.search import declare_winners, with_hparams_from
from dg_batchformer.results.winners import read_winners
from dg_batchformer.spec.manifest import manifest_content, read_sweep_manifest
from dg_batchformer.spec.race import Race
from dg_batchformer.spec.search import Search
from dg_batchformer.spec.sweep import Row, SweepSpec
from dg_batchformer.storage.digests import mark_done
from dg_batchformer.storage.folders import SweepFolder
from dg_batchformer.sweep.expand import expand

ROWS = (Row("ERM", "ERM", {"batch_size": 8}), Row("BF", "ERM+BF"))
ASKED = SweepSpec("mine", ("Toy",), ROWS, test_envs=("A", "B"), search=Search((0,), (1, 2), draws=4))
LRS = (1e-3, 2e-3, 3e-3, 4e-3)


def _record(folder, run, validation, test=0.5, **hparams):
    """Overwrite the records of a run; a test environment's held-out split has the test accuracy too."""
    files = folder.run(run.spec.id)
    files.path.mkdir(parents=True, exist_ok=True)
    record = {"step": 300, "final": False, "protocol": run.spec.protocol, "args": {"hparams": dict(run.spec.hparams)}}
    record["hparams"] = {"batch_size": 8, "lr": 9e-3, **hparams, **run.spec.hparams}
    record |= {f"env{env}_out_acc": test if env in run.spec.test_envs else validation for env in range(4)}
    record |= {f"env{env}_in_acc": test for env in run.spec.test_envs}
    files.records_file.write_text(json.dumps(record) + "\n")
    mark_done(files, {"outcome": "done"})


def _search(path, asked=ASKED, test=0.5):
    """Write a finished search in which draw 2 wins on A, and draw 3 on B."""
    folder = write_sweep(path / asked.name, asked, lambda run: 0.5, hparams={})
    for run in expand(asked):
        wins = run.spec.hparams_seed == 2 + run.spec.test_envs[0]
        _record(folder, run, 0.9 if wins else 0.6, test, lr=LRS[run.spec.hparams_seed % 4])
    return folder


def _finish(folder, runs):
    for run in runs:
        _record(folder, run, 0.8, 0.7)
    return folder


def test_winners_are_chosen_by_row_and_test_environment_and_trained_on_further_trials(tmp_path):
    folder = _search(tmp_path)

    further = declare_winners(folder)

    assert [(run.label, run.spec.trial_seed, run.spec.test_envs, run.spec.hparams) for run in further] == [
        ("ERM", 1, (0,), {"batch_size": 8, "lr": 3e-3}),
        ("ERM", 1, (1,), {"batch_size": 8, "lr": 4e-3}),
        ("BF", 1, (0,), {"lr": 3e-3}),
        ("BF", 1, (1,), {"lr": 4e-3}),
        ("ERM", 2, (0,), {"batch_size": 8, "lr": 3e-3}),
        ("ERM", 2, (1,), {"batch_size": 8, "lr": 4e-3}),
        ("BF", 2, (0,), {"lr": 3e-3}),
        ("BF", 2, (1,), {"lr": 4e-3}),
    ]
    assert read_sweep_manifest(folder).runs[-8:] == further
    [same, *_] = expand(replace(ASKED, search=None, trials=(1,), hparams={"lr": 3e-3}))
    assert further[0].spec.id == same.spec.id
    winner = read_winners(folder)[0]
    assert (winner.row, winner.place, winner.selection, winner.tried) == ("ERM", "Toy/A", "training-domain", 4)


def test_test_accuracies_never_change_a_winner(tmp_path):
    chosen = []
    for place, test in (("low", 0.0), ("high", 1.0)):
        folder = _search(tmp_path / place, test=test)
        for run in expand(ASKED):  # and the draws that lose test best
            if run.spec.hparams_seed == 0 and test:
                _record(folder, run, 0.6, 0.99, lr=LRS[0])
        _finish(folder, declare_winners(folder))
        further = declare_winners(folder)
        chosen.append([(run.spec.id, run.winner) for run in further])

    assert chosen[0] == chosen[1]


def test_the_selection_of_the_search_chooses(tmp_path):
    oracle = replace(ASKED, search=replace(ASKED.search, selection="oracle"))
    folder = _search(tmp_path, oracle)
    best = next(run for run in expand(oracle) if run.spec.hparams_seed == 1)
    _record(folder, best, 0.1, 0.95, lr=LRS[1])

    declare_winners(folder)

    assert (read_winners(folder)[0].run, read_winners(folder)[0].selection) == (best.spec.id, "oracle")


def test_grid_points_are_compared_by_their_mean_over_trials(tmp_path):
    asked = replace(ASKED, algorithms=ROWS[:1], grid={"lr": LRS}, search=Search((0, 5), (1,)))
    folder = write_sweep(tmp_path / "mine", asked, lambda run: 0.5, hparams={})
    validation = {(0, LRS[0]): 0.9, (5, LRS[0]): 0.1, (0, LRS[1]): 0.7, (5, LRS[1]): 0.7}
    for run in expand(asked):
        _record(folder, run, validation.get((run.spec.trial_seed, run.point["lr"]), 0.3))

    further = declare_winners(folder)

    assert [run.point for run in further] == [{"lr": LRS[1]}] * 2
    assert read_winners(folder)[0].validation == pytest.approx(0.7)


def test_nothing_is_chosen_before_the_search_has_finished(tmp_path, capsys):
    folder = _search(tmp_path)
    files = folder.run(expand(ASKED)[5].spec.id)
    files.done_file.unlink()

    assert declare_winners(folder) == []
    assert not folder.winners_file.exists()
    assert main(["tables", str(folder.path)]) == 2
    assert "the search of mine has not chosen its winners; finish it: python -m" in capsys.readouterr().err
    assert main(["tables", str(folder.path), "--search"]) == 0
    assert main(["status", str(folder.path)]) == 0
    assert "then: the search chooses its winners, and trains them on trials 1, 2: python" in capsys.readouterr().out


@pytest.mark.parametrize("lost", ["sweep.json", "winners.json", "both"])
def test_a_choice_that_was_killed_is_repeated_with_the_same_winners(tmp_path, lost):
    folder = _search(tmp_path)
    before, first = folder.sweep_file.read_text(), declare_winners(folder)
    written = folder.winners_file.read_text()
    if lost != "winners.json":
        folder.sweep_file.write_text(before)
    if lost != "sweep.json":
        folder.winners_file.unlink()

    assert declare_winners(folder) == first
    assert folder.winners_file.read_text() == written
    assert read_sweep_manifest(folder).runs[-8:] == first


def test_a_wider_search_chooses_again(tmp_path):
    declare_winners(_search(tmp_path))
    wider = replace(ASKED, search=replace(ASKED.search, draws=5))
    folder = SweepFolder(tmp_path / "mine")
    folder.write(manifest_content(wider, expand(wider)))
    assert declare_winners(folder) == []
    for run in expand(wider):
        if run.spec.hparams_seed == 4:
            _record(folder, run, 0.95, lr=5e-3)

    assert {run.point["lr"] for run in declare_winners(folder)} == {5e-3}


def _fail(folder, run):
    folder.run(run.spec.id).done_file.unlink(missing_ok=True)
    folder.run(run.spec.id).fail("CUDA out of memory")


def test_a_winner_keeps_all_values_of_its_grid_also_those_that_no_other_run_with_a_result_differs_in(tmp_path):
    grid = {"lr": (0.02,), "mlp_width": (16, 32)}
    asked = replace(ASKED, algorithms=ROWS[1:], grid=grid, search=Search((0,), (1,)))
    folder = write_sweep(tmp_path / "mine", asked, lambda run: 0.5, hparams={})
    for run in expand(asked):
        _record(folder, run, 0.5)
        if run.point["mlp_width"] == 16:
            _fail(folder, run)

    assert [run.spec.hparams for run in declare_winners(folder)] == [{"lr": 0.02, "mlp_width": 32}] * 2


@pytest.mark.parametrize("default_is_recorded", [True, False])
def test_a_draw_that_wins_alone_keeps_what_it_drew(tmp_path, default_is_recorded):
    folder = _search(tmp_path)
    for run in expand(ASKED):
        if run.spec.hparams_seed != 2:
            _fail(folder, run)
        if run.spec.hparams_seed == 0 and not default_is_recorded:
            folder.run(run.spec.id).records_file.unlink()

    for run in declare_winners(folder):
        assert run.spec.hparams["lr"] == LRS[2]
        assert run.spec.hparams.get("batch_size", 8) == 8


def test_failed_runs_are_left_out_and_counted(tmp_path):
    folder = _search(tmp_path)
    for run in expand(ASKED):
        if run.spec.hparams_seed == 2:
            _fail(folder, run)

    declare_winners(folder)
    assert {(winner.failed, winner.tried) for winner in read_winners(folder)} == {(1, 3)}

    for run in expand(ASKED)[:4]:
        _fail(folder, run)
    folder.winners_file.unlink()
    with pytest.raises(InputError, match="no run of ERM on Toy/A has a result to choose hparams by"):
        declare_winners(folder)


def test_draws_that_a_race_stopped_are_counted_and_never_win(tmp_path):
    raced = replace(ASKED, race=Race((300,)))
    folder = _search(tmp_path, raced)
    for run in expand(raced):
        if run.spec.hparams_seed in (1, 3):
            folder.run(run.spec.id).done_file.unlink()
            folder.run(run.spec.id).race_file.write_text('{"seconds": 1}')

    declare_winners(folder)

    winners = read_winners(folder)
    assert {(winner.tried, winner.stopped, winner.failed) for winner in winners} == {(4, 2, 0)}
    assert {winner.hparams["lr"] for winner in winners} == {LRS[2]}  # draw 3, the best on B, stopped
    assert [winner.edges for winner in winners] == [{}] * 4


def test_a_grid_point_that_a_race_stopped_on_one_trial_never_wins(tmp_path):
    asked = SweepSpec("mine", ("Toy",), ROWS[:1], test_envs=("A",), trials=2, grid={"lr": LRS}, race=Race((300,)))
    folder = write_sweep(tmp_path / "mine", asked, lambda run: 0.5, hparams={})
    for run in expand(asked):
        _record(folder, run, run.point["lr"])
        if run.point["lr"] == LRS[-1] and run.spec.trial_seed == 1:
            folder.run(run.spec.id).done_file.unlink()
            folder.run(run.spec.id).race_file.write_text("{}")

    later = expand(_taking(algorithms=ROWS[:1], test_envs=("A",)))
    [run], _ = with_hparams_from(folder.path, SweepFolder(tmp_path / "later"), later)

    assert run.spec.hparams["lr"] == LRS[2]


def _tables(capsys, folder, *more):
    arguments = ["--selection", "training-domain", "oracle", "--format", "json", "--hparams", *more]
    assert main(["tables", str(folder.path), *arguments]) == 0
    return [section["tables"][0] for section in json.loads(capsys.readouterr().out)["sections"]]


def test_tables_show_the_winners_and_name_the_selection_and_the_edges(tmp_path, capsys):
    folder = _search(tmp_path)
    _finish(folder, declare_winners(folder))

    by_training, by_oracle = _tables(capsys, folder)

    assert by_training["rows"][0]["cells"][0]["n"] == 2
    assert by_training["draws"][0]["hparams"] == {"lr": "0.003"}
    notes = " ".join(by_training["notes"])
    said = "hparams were chosen by training-domain selection among 4 candidates on trial 0"
    assert said in notes
    assert "steps only" not in notes
    assert f"{said}, separately for every test environment; oracle selection chose the steps only" in " ".join(
        by_oracle["notes"]
    )
    assert "wider range may be better: ERM: lr is the largest value tried on Toy/B; BF: lr is" in notes
    assert "differs" not in notes

    [searched, _] = _tables(capsys, folder, "--search")
    assert (searched["trials"], searched["rows"][0]["cells"][0]["mean"]) == (1, 50.0)


def test_packed_records_keep_the_winners(tmp_path, capsys):
    pytest.importorskip("pyarrow")
    folder = _search(tmp_path)
    _finish(folder, declare_winners(folder))
    whole = _tables(capsys, folder)

    pack(folder)
    folder.sweep_file.unlink()
    folder.winners_file.unlink()

    assert _tables(capsys, folder) == whole


def test_a_damaged_choice_is_named_and_not_replaced(tmp_path):
    folder = _search(tmp_path)
    declare_winners(folder)
    folder.winners_file.write_text('[{"row": 1}]')

    with pytest.raises(InputError, match=r"winners.json cannot be read: .*; delete it to choose again"):
        declare_winners(folder)


def _taking(**given):
    return SweepSpec(**{"name": "later", "datasets": ("Toy",), "algorithms": ROWS, "trials": (7,), **given})


def test_hparams_come_from_another_sweep_and_stay_as_first_taken(tmp_path):
    other, folder = _search(tmp_path), SweepFolder(tmp_path / "later")
    asked = _taking(test_envs=("A", "B"), hparams_from=str(other.path))

    runs, winners = with_hparams_from(other.path, folder, expand(asked))

    assert [run.spec.hparams["lr"] for run in runs] == [3e-3, 4e-3, 3e-3, 4e-3]
    assert {run.spec.trial_seed for run in runs} == {7}
    assert [run.varied for run in runs] == [("lr",)] * 4
    assert {winner.source for winner in winners} == {str(other.path)}


def test_a_choice_that_was_made_stands_even_if_the_search_is_trained_again(tmp_path):
    other = _search(tmp_path)
    declare_winners(other)
    for run in expand(ASKED):
        _record(other, run, 0.6 - 0.1 * run.spec.hparams_seed, lr=LRS[run.spec.hparams_seed])

    runs, _ = with_hparams_from(other.path, SweepFolder(tmp_path / "later"), expand(_taking(test_envs=("A",))))

    assert {run.spec.hparams["lr"] for run in runs} == {3e-3}


def test_a_sweep_that_tries_nothing_has_no_hparams_to_take(tmp_path):
    plain = SweepSpec("plain", ("Toy",), ROWS[:1], trials=1, test_envs=("A",))
    other = write_sweep(tmp_path / "plain", plain, lambda run: 0.5, hparams={"lr": 1})

    with pytest.raises(InputError, match="plain tries no hparams; name a sweep with a search, draws or a grid"):
        with_hparams_from(other.path, SweepFolder(tmp_path / "later"), expand(_taking(test_envs=("A",))))


def test_values_that_a_sweep_file_sets_go_before_those_taken_from_another_sweep(tmp_path):
    other = _search(tmp_path)
    asked = _taking(test_envs=("A",), algorithms=(Row("BF", "ERM+BF", {"lr": 1}),))

    [run], _ = with_hparams_from(other.path, SweepFolder(tmp_path / "later"), expand(asked))

    assert (run.spec.hparams, run.varied) == ({"lr": 1}, ())


def test_hparams_of_a_row_that_the_other_sweep_lacks_are_refused(tmp_path):
    other, later = _search(tmp_path), SweepFolder(tmp_path / "later")

    with pytest.raises(
        InputError, match=r"has no row labelled 'ERM' on Toy/C to take hparams from; it has ERM on Toy/A"
    ):
        with_hparams_from(other.path, later, expand(_taking(test_envs=("C",))))
    other.run(expand(ASKED)[0].spec.id).done_file.unlink()
    with pytest.raises(InputError, match=r"1 of 16 runs of .*mine are unfinished; train them: python"):
        with_hparams_from(other.path, later, expand(_taking(test_envs=("A",))))
