"""A results folder of version 0.1.0 gives the same tables, states and report as then.

``tests/data/earlier`` holds the folder (ERM and SWAD, plain and with BatchFormer, on the Toy vectors: 32 runs) and the
tables that commit 7b53ee4 printed of it.
"""

import json
import tarfile
from pathlib import Path

import pytest

from dg_batchformer.cli.main import main

EARLIER = Path(__file__).parent / "data" / "earlier"
TABLES = json.loads((EARLIER / "tables.json").read_text())


@pytest.fixture
def folder(tmp_path):
    with tarfile.open(EARLIER / "results.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "earlier"


@pytest.mark.parametrize("selection", TABLES)
def test_tables_of_an_earlier_version_stay_the_same(selection, folder, capsys):
    assert main(["tables", str(folder), "--selection", selection, "--format", "json"]) == 0

    [section] = json.loads(capsys.readouterr().out)["sections"]
    [table] = section["tables"]
    rows = {
        row["label"]: [[cell["mean"], cell["error"], cell["n"], cell["mark"]] for cell in row["cells"]]
        for row in table["rows"]
    }
    assert table["columns"] == TABLES[selection]["columns"]
    assert rows == TABLES[selection]["rows"]


def test_the_states_of_an_earlier_version_stay_the_same(folder, capsys):
    assert main(["status", str(folder)]) == 0

    counts = {tuple(line.split()[:-2]) for line in capsys.readouterr().out.splitlines()}  # without the device time
    assert ("ERM", "8", "8", "done") in counts
    assert ("all", "32", "32", "done") in counts


@pytest.mark.system
def test_the_report_of_an_earlier_version_shows_the_same_averages(folder, tmp_path):
    assert main(["report", str(folder), "--output", str(tmp_path / "report.html")]) == 0

    page = (tmp_path / "report.html").read_text()
    column = TABLES["training-domain"]["columns"].index("Average")
    for label, cells in TABLES["training-domain"]["rows"].items():
        assert label in page
        assert f"{cells[column][0]:.1f}" in page
