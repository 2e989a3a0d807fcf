"""What all renderings say alike: numbers, marks of significance, captions, empty cells."""

from dg_batchformer.results.row_conditions import DIFFERS
from dg_batchformer.results.selection import Selection
from dg_batchformer.tables.table import Cell, Section, Table

EMPTY = "X"
SIGNIFICANCE = {"above": "†", "below": "‡"}
UNPUBLISHED = "–"


def number(cell: Cell, plus_minus: str, trials: int) -> str:
    """Return a cell as text: mean and error in percent; n where it is one, or less than the table's."""
    if cell.mean is None:
        return EMPTY
    error = "" if cell.error is None else f"{plus_minus}{cell.error:.1f}"
    few = f" (n={cell.n})" if cell.n == 1 or 0 < cell.n < trials else ""
    return f"{cell.mean:.1f}{error}{few}"


def row_name(table: Table, label: str) -> str:
    """Return the label of a row, marked (§) where the row differs from the others in more than the algorithm."""
    return f"{label} {DIFFERS}" if label in table.conditions.differs else label


def significance(table: Table, label: str, column: int) -> str:
    """Return the mark of a mean that is significantly above (†) or below (‡) the baseline's; else ''."""
    return SIGNIFICANCE.get(table.differing.get((label, column), ""), "")


def published_number(cell: Cell, plus_minus: str) -> str:
    """Return a cell of a published row as text: mean and error in percent, as far as they are published."""
    return UNPUBLISHED if cell.mean is None else number(cell, plus_minus, cell.n)


def sentence(text: str) -> str:
    """Return a phrase as a sentence."""
    return f"{text[0].upper()}{text[1:]}."


def no_table(section: Section) -> str:
    """Return the line that stands for a section without tables."""
    return f"Model selection: {section.method.title}: no table; {'; '.join(section.notes)}"


DRAW_COLUMNS = ("row", "test environment", "trial", "draw", "step", "hparams that differ between draws")


def draw_rows(table: Table) -> list[list[str]]:
    """Return the selected draws of a table as lines below ``DRAW_COLUMNS``."""
    return [
        [
            draw.label,
            draw.environment,
            str(draw.trial),
            str(draw.draw) if draw.draw else "0 (defaults)",
            str(draw.step),
            ", ".join(f"{name} {value}" for name, value in draw.hparams.items()) or "none",
        ]
        for draw in table.draws
    ]


def draws_caption(table: Table, method: Selection) -> str:
    """Return what the lines of selected draws show."""
    return f"{table.title}: selected steps and draws of hparams; model selection: {method.title}"


def caption(table: Table, method: Selection) -> str:
    """Return what a table shows."""
    trials = (
        "one trial (n = 1), so no standard error"
        if table.trials == 1
        else f"mean and standard error over n = {table.trials} trials"
    )
    return f"{table.title}: {table.metric.title} (%); model selection: {method.title}; {trials}"
