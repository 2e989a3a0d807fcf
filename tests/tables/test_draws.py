"""Selected draws by row, environment and trial, with their hparams, in every format."""

import csv
import json

import pytest
from sweep_folders import write_sweep

from dg_batchformer.cli.main import main
from dg_batchformer.spec.sweep import Row, SweepSpec
from dg_batchformer.storage.digests import mark_done
from dg_batchformer.sweep.expand import expand
from dg_batchformer.tables.render import FORMATS

ASKED = SweepSpec("mine", ("Toy",), (Row("ERM", "ERM"), Row("a & b", "ERM+BF")), trials=1, draws=3)


@pytest.fixture
def folder(tmp_path):
    """A sweep in which draw 1 is selected on every environment but A, where the defaults are."""
    folder = write_sweep(tmp_path / "mine", ASKED, lambda run: 0.5, hparams={})
    for run in expand(ASKED):
        file = folder.run(run.spec.id).records_file
        record = json.loads(file.read_text())
        wins = run.spec.hparams_seed == (0 if run.spec.test_envs == (0,) else 1)
        record |= {f"env{env}_out_acc": 0.9 if wins else 0.1 for env in range(4)}
        record["hparams"] = {"lr": 1e-3 / (1 + run.spec.hparams_seed), "batch_size": 8}
        file.write_text(json.dumps(record) + "\n")
        mark_done(folder.run(run.spec.id), {"outcome": "done"})
    return folder.path


def _shown(folder, capsys, name, *more):
    assert main(["tables", str(folder), "--selection", "training-domain", "--format", name, *more]) == 0
    return capsys.readouterr().out


def test_the_selected_draw_is_listed_with_what_differs_from_others(folder, capsys):
    [section] = json.loads(_shown(folder, capsys, "json", "--hparams"))["sections"]

    draws = section["tables"][0]["draws"]

    assert [(draw["label"], draw["environment"], draw["draw"]) for draw in draws] == [
        (label, environment, 0 if environment == "A" else 1) for label in ("ERM", "a & b") for environment in "ABCD"
    ]
    assert [draw["hparams"] for draw in draws[:2]] == [{"lr": "0.001"}, {"lr": "0.0005"}]
    assert {draw["step"] for draw in draws} == {300}


def test_every_cell_of_csv_names_its_draws_if_asked(folder, capsys):
    assert "draw" not in _shown(folder, capsys, "csv")

    lines = csv.DictReader(_shown(folder, capsys, "csv", "--hparams").splitlines())

    draws = {(line["row"], line["column"]): line["draws"] for line in lines}
    assert draws["ERM", "A"] == "trial 0: draw 0 at step 300, lr 0.001"
    assert draws["a & b", "B"] == "trial 0: draw 1 at step 300, lr 0.0005"
    assert draws["ERM", "Average"] == ""


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "csv"])
def test_every_text_format_shows_draws_if_asked(name, folder, capsys):
    assert "0.0005" not in _shown(folder, capsys, name)
    assert _shown(folder, capsys, name, "--hparams").count("0.0005") == 6


def test_the_report_shows_draws_if_there_are_any(folder, tmp_path, capsys):
    assert main(["report", str(folder)]) == 0
    assert "<td>lr 0.0005</td>" in (folder / "report.html").read_text()

    defaults = write_sweep(tmp_path / "one", SweepSpec("one", ("Toy",), ASKED.algorithms), lambda run: 0.5, hparams={})
    assert main(["report", str(defaults.path)]) == 0
    assert 'class="draws"' not in (defaults.path / "report.html").read_text()


def test_domainbeds_tables_have_no_draws(folder, capsys):
    assert main(["tables", str(folder), "--format", "domainbed", "--hparams"]) == 2
    assert "drop --hparams" in capsys.readouterr().err
