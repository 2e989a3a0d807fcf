"""Notes on chosen values at the edge of those tried."""

import pytest
from generated import write_sweep

from dg_batchformer.results.collect import collect
from dg_batchformer.spec.sweep import Row
from dg_batchformer.tables.table import build_sections

ROWS = (Row("ERM", "ERM"),)


def _notes(folder):
    [section] = build_sections(collect([folder.path]), ["training-domain"])
    return [note for note in section.tables[0].notes if "at the edge" in note]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((5e-5, 1e-2, 1e-1), ["lr is the smallest in 4 of 4 choices"]),
        ((1e-8, 1e-6, 5e-5), ["lr is the largest in 4 of 4 choices"]),
        ((1e-8, 5e-5, 1e-1), []),
        ((5e-5, 1e-1), []),  # every value is at an edge
    ],
)
def test_a_value_that_is_mostly_chosen_at_one_edge_of_a_grid_is_noted(tmp_path, values, said):
    folder = write_sweep(tmp_path, draws=1, trials=1, grid={"lr": values}, algorithms=ROWS)  # validates best at 5e-5

    assert [note.rpartition("ERM: ")[2] for note in _notes(folder)] == said


def test_random_draws_whose_choices_do_not_agree_are_not_noted(tmp_path):
    assert not _notes(write_sweep(tmp_path, draws=8, algorithms=ROWS))
