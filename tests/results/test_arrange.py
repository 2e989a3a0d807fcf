"""Rows of tables: which, under which names, and in which order."""

import json

import pytest
from sweep_folders import write_sweep

from dg_batchformer.cli.main import main
from dg_batchformer.errors import InputError
from dg_batchformer.results.arrange import Arrangement
from dg_batchformer.results.collect import collect
from dg_batchformer.spec.sweep import Row, SweepSpec

ROWS = (Row("ERM", "ERM"), Row("ERM+BF", "ERM+BF"), Row("CORAL", "CORAL"))


@pytest.fixture
def folders(tmp_path):
    """Two sweeps whose rows share names; the tests of the second are better."""
    sweeps = [SweepSpec(name, ("Toy",), ROWS, trials=1, steps=steps) for name, steps in (("short", 9), ("long", 99))]
    return [
        write_sweep(tmp_path / sweep.name, sweep, lambda run: run.spec.steps / 100, hparams={}).path for sweep in sweeps
    ]


def test_rows_are_chosen_renamed_and_ordered(folders):
    asked = Arrangement(rename={"ERM+BF": "Ours"}, rows=["Ours", "ERM"])
    collection = collect(folders[:1], arrangement=asked)

    assert collection.rows == ["Ours", "ERM"]
    assert {(run.label, run.algorithm) for run in collection.runs} == {("Ours", "BF"), ("ERM", "ERM")}
    assert collect(folders[:1], arrangement=Arrangement(order=["CORAL"])).rows == ["CORAL", "ERM", "ERM+BF"]


def test_the_rows_of_two_sweeps_are_told_apart_by_the_name_of_the_sweep(folders):
    asked = Arrangement(rename={"short:ERM": "ERM, short", "CORAL": "C"}, rows=["ERM", "ERM, short"])
    collection = collect(folders, arrangement=asked)

    assert {(run.label, run.path.parts[-3]) for run in collection.runs} == {("ERM", "long"), ("ERM, short", "short")}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Arrangement(rows=["EMR"]), "unknown row 'EMR'; did you mean 'ERM'"),
        (Arrangement(order=["EMR"]), "unknown row 'EMR'; did you mean 'ERM'"),
        (Arrangement(rows=["ERM"], order=["ERM+BF"]), r"unknown row 'ERM\+BF'; did you mean 'ERM'\? \(known: ERM\)"),
        (Arrangement(rename={"EMR": "x"}), "unknown row 'EMR'; did you mean 'ERM'"),
        (Arrangement(rename={"ERM": "x"}, rows=["ERM"]), "unknown row 'ERM'"),
        (Arrangement(rows=["ERM", "ERM"]), "rows names 'ERM' twice"),
    ],
)
def test_an_unknown_row_is_named(folders, asked, message):
    with pytest.raises(InputError, match=message):
        collect(folders[:1], arrangement=asked)


def test_every_grid_point_can_be_a_row_in_the_place_of_its_row(tmp_path):
    rows = (Row("ERM", "ERM", grid={"lr": (1e-5, 3e-5)}), Row("CORAL", "CORAL"))
    folder = write_sweep(tmp_path / "mine", SweepSpec("mine", ("Toy",), rows, trials=1), lambda run: 0.5, hparams={})

    collection = collect([folder.path], arrangement=Arrangement(grid_points=True, rename={"ERM, lr 1e-05": "low"}))

    assert collection.rows == ["low", "ERM, lr 3e-05", "CORAL"]
    assert [run.label for run in collection.runs][::4] == ["low", "low", "CORAL"]


def _tables(capsys, *arguments):
    assert main(["tables", *map(str, arguments), "--selection", "training-domain", "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)["sections"][0]["tables"]


def test_tables_show_the_columns_that_are_asked_for_and_name_the_others(folders, capsys):
    arguments = (folders[0], "--columns", "Average", "B", "--rename", "ERM+BF=Ours", "--order", "Ours")
    [table] = _tables(capsys, *arguments)
    [whole] = _tables(capsys, folders[0])

    assert table["columns"] == ["Average", "B"]
    assert [row["label"] for row in table["rows"]] == ["Ours", "ERM", "CORAL"]
    assert table["rows"][0]["cells"] == [whole["rows"][1]["cells"][place] for place in (4, 1)]
    assert table["notes"][-1] == "not shown: A, C, D, Worst, In-domain"


def test_the_average_of_hidden_environments_is_in_every_format(folders, capsys):
    for name in ("text", "html", "latex", "markdown", "csv"):
        assert main(["tables", str(folders[0]), "--columns", "B", "--selection", "all", "--format", name]) == 0
    assert main(["tables", str(folders[0]), "--columns", "Avrage"]) == 2
    assert "unknown column 'Avrage'; did you mean 'Average'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rename", "ERM"], "--rename takes ROW=NAME, such as ERM+BF=Ours, got 'ERM'"),
        (["--rows", "ERM", "--expect"], "drop --rows"),
        (["--columns", "A", "--format", "domainbed"], "drop --columns"),
        (["--search"], "search reads the runs of a search, but"),
    ],
)
def test_options_that_cannot_be_used_are_named(folders, capsys, arguments, message):
    assert main(["tables", str(folders[0]), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_report_repeats_its_options_and_compare_takes_new_names(folders, tmp_path, capsys):
    page = tmp_path / "page.html"
    arguments = ["--rows", "Ours", "ERM", "--rename", "ERM+BF=Ours", "--columns", "Average"]

    assert main(["report", str(folders[0]), *arguments, "--output", str(page)]) == 0
    assert "--rename ERM+BF=Ours --rows Ours ERM --columns Average" in page.read_text()
    assert "CORAL</th>" not in page.read_text()
    assert main(["compare", "ERM", "Ours", str(folders[0]), "--rename", "ERM+BF=Ours"]) == 0
    assert "Ours" in capsys.readouterr().out
