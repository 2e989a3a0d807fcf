"""The committed answers in results/ can be rendered again, from their packed records."""

from pathlib import Path

import pytest

from dg_batchformer.results.collect import collect
from dg_batchformer.tables.render import render
from dg_batchformer.tables.table import build_sections

ROOT = Path(__file__).parents[2]
MEASUREMENTS = {"speed", "statistics"}  # of the software, by tools
ANSWERS = [path for path in sorted((ROOT / "results").iterdir()) if (path / "README.md").exists()]


@pytest.mark.parametrize(
    "folder", [path for path in ANSWERS if path.name not in MEASUREMENTS], ids=lambda path: path.name
)
def test_the_committed_table_is_the_one_of_the_packed_records(folder):
    assert (ROOT / "sweeps" / f"{folder.name}.yaml").exists()
    again = render(build_sections(collect([folder], search=False), ["training-domain"]), "csv").splitlines()

    assert len(again) > 1
    assert set(again) <= set((folder / "tables.csv").read_text().splitlines())
