"""Texts shared by all renderers: numbers, significance marks, captions, empty cells."""

from dg_batchformer.results.row_conditions import DIFFERS
from dg_batchformer.results.selection import Selection
from dg_batchformer.tables.table import Cell, Section, Table

EMPTY = "X"
SIGNIFICANCE = {"above": "†", "below": "‡"}
UNPUBLISHED = "–"


def number(cell: Cell, plus_minus: str, trials: int) -> str:
    """Format a cell: mean and error in percent, with n if it is 1 or less than that of the table."""
    if cell.mean is None:
        return EMPTY
    error = "" if cell.error is None else f"{plus_minus}{cell.error:.1f}"
    few = f" (n={cell.n})" if cell.n == 1 or 0 < cell.n < trials else ""
    return f"{cell.mean:.1f}{error}{few}"


def row_name(table: Table, label: str) -> str:
    """Return the label of a row, with § if it differs from the others beyond the algorithm."""
    return f"{label} {DIFFERS}" if label in table.conditions.differs else label


def significance(table: Table, label: str, column: int) -> str:
    """Return the mark of a mean significantly above (†) or below (‡) the baseline, else ''."""
    return SIGNIFICANCE.get(table.differing.get((label, column), ""), "")


def published_number(cell: Cell, plus_minus: str) -> str:
    """Format a published cell: mean and error in percent, as far as they are published."""
    return UNPUBLISHED if cell.mean is None else number(cell, plus_minus, cell.n)


def sentence(text: str) -> str:
    """Capitalize a phrase and add a period."""
    return f"{text[0].upper()}{text[1:]}."


def no_table(section: Section) -> str:
    """Return the line for a section without tables."""
    return f"Model selection: {section.method.title}: no table; {'; '.join(section.notes)}"


DRAW_COLUMNS = ("row", "test environment", "trial", "draw", "step", "hparams that differ between draws")


def draw_rows(table: Table) -> list[list[str]]:
    """Return the selected draws of a table as rows with columns ``DRAW_COLUMNS``."""
    return [
        [
            draw.label,
            draw.environment,
            str(draw.trial),
            draw.kind if draw.kind != "draw" else str(draw.draw) if draw.draw else "0 (defaults)",
            str(draw.step),
            ", ".join(f"{name} {value}" for name, value in draw.hparams.items()) or "none",
        ]
        for draw in table.draws
    ]


def draws_caption(table: Table, method: Selection) -> str:
    """Return the caption of the table of selected draws."""
    return f"{table.title}: selected steps and draws of hparams; model selection: {method.title}"


def caption(table: Table, method: Selection) -> str:
    """Return the caption of a table."""
    trials = (
        "one trial (n = 1), so no standard error"
        if table.trials == 1
        else f"mean and standard error over n = {table.trials} trials"
    )
    return f"{table.title}: {table.metric.title} (%); model selection: {method.title}; {trials}"
