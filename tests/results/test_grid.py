"""Sweeps with a grid: selection chooses among its points, as among draws."""

import json

import pytest
from sweep_folders import write_sweep

from dg_batchformer.cli.main import main
from dg_batchformer.errors import InputError
from dg_batchformer.results.collect import collect, refuse_mixed
from dg_batchformer.results.scores import choose
from dg_batchformer.results.selection import METHODS
from dg_batchformer.spec.sweep import Row, SweepSpec
from dg_batchformer.storage.digests import mark_done
from dg_batchformer.sweep.expand import expand

ROWS = (Row("ERM", "ERM"), Row("BF", "ERM+BF", grid={"bf_dropout": (0.1, 0.5)}))
ASKED = SweepSpec("mine", ("Toy",), ROWS, grid={"lr": (1e-3, 3e-3, 1e-2)}, trials=1)


def _write(folder, asked, validation):
    """Write a sweep whose test accuracy is its lr, with given validation accuracy."""
    written = write_sweep(folder, asked, lambda run: run.spec.hparams["lr"], hparams={})
    for run in expand(asked):
        files = written.run(run.spec.id)
        record = json.loads(files.records_file.read_text())
        record |= {f"env{env}_out_acc": validation(run) for env in range(4)}
        record |= {"args": {"hparams": run.spec.hparams}, "hparams": {"batch_size": 8, **run.spec.hparams}}
        files.records_file.write_text(json.dumps(record) + "\n")
        mark_done(files, {"outcome": "done"})
    return written.path


@pytest.fixture
def folder(tmp_path):
    """A sweep in which 3e-3 validates best on A, and all points are equal elsewhere."""
    return _write(
        tmp_path / "mine", ASKED, lambda run: 0.9 if run.spec.test_envs == (0,) and run.point["lr"] == 3e-3 else 0.5
    )


def test_selection_chooses_among_points_and_ties_go_to_the_first(folder):
    collection = collect([folder])
    refuse_mixed(collection)

    chosen = choose(collection, METHODS["training-domain"])

    assert {key[1:3]: choice.run.point for key, choice in chosen.items() if key[2] < 2} == {
        ("ERM", 0): {"lr": 3e-3},
        ("ERM", 1): {"lr": 1e-3},
        ("BF", 0): {"lr": 3e-3, "bf_dropout": 0.1},
        ("BF", 1): {"lr": 1e-3, "bf_dropout": 0.1},
    }
    assert all(choice.score.test == choice.run.point["lr"] for choice in chosen.values())


def test_tables_name_the_chosen_points_and_the_number_that_each_row_tried(folder, capsys):
    assert main(["tables", str(folder), "--selection", "training-domain", "--hparams", "--format", "json"]) == 0

    [section] = json.loads(capsys.readouterr().out)["sections"]
    [table] = section["tables"]
    first = table["draws"][0]
    assert (first["environment"], first["hparams"], first["kind"]) == ("A", {"lr": "0.003"}, "grid point")
    assert "BF (draws 6, not 3)" in " ".join(table["notes"])
    assert "lr 0.00" not in " ".join(table["notes"])


def test_rows_of_two_sweeps_share_points_and_keep_others(folder, tmp_path):
    wider = SweepSpec("wider", ("Toy",), ROWS[:1], grid={"lr": (3e-3, 1e-1)}, trials=1, test_envs=("A",))
    more = _write(tmp_path / "wider", wider, lambda run: 0.95)

    collection = collect([folder, more])

    refuse_mixed(collection)
    points = [run.point["lr"] for run in collection.runs if run.label == "ERM" and run.test_envs == (0,)]
    assert points == [1e-3, 3e-3, 1e-2, 1e-1]
    assert collection.skipped[0].startswith("1 run is duplicated")


def test_other_hparams_must_still_agree_among_points(folder, tmp_path):
    other = SweepSpec("other", ("Toy",), ROWS[:1], grid={"lr": (1e-1,)}, hparams={"batch_size": 9}, trials=1)
    more = _write(tmp_path / "other", other, lambda run: 0.95)

    with pytest.raises(InputError, match="mixes runs of different hparams"):
        refuse_mixed(collect([folder, more]))


def test_domainbed_has_no_tables_of_grids(folder, capsys):
    assert main(["tables", str(folder), "--format", "domainbed"]) == 2
    assert "is a sweep with a grid" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("bf_dropout: [0.1]", "mine.yaml:2: row 'ERM': unknown hparam of ERM on Toy: 'bf_dropout'"),
        ("lr: [0.1, -1]", "mine.yaml:2: row 'ERM': hparam lr is -1.0; allowed: at least 0"),
    ],
)
def test_a_value_that_no_run_could_have_is_named_before_any_run_starts(tmp_path, capsys, grid, message):
    file = tmp_path / "mine.yaml"
    file.write_text(f"datasets: [Toy]\nalgorithms: [ERM]\ngrid: {{{grid}}}\n")

    assert main(["sweep", str(file), "--launcher", "dry_run", "--results_dir", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
