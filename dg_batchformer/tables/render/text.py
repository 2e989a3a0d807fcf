"""Render tables as text."""

from collections.abc import Sequence

from tabulate import SEPARATING_LINE, tabulate

from dg_batchformer.results.selection import Selection
from dg_batchformer.tables.render.wording import (
    DRAW_COLUMNS,
    EMPTY,
    caption,
    draw_rows,
    draws_caption,
    no_table,
    number,
    published_number,
    row_name,
    sentence,
    significance,
)
from dg_batchformer.tables.table import Section, Table


def text(sections: Sequence[Section]) -> str:
    """Render tables as text; ``*`` marks the best of a column, ``'`` the second best, and X an empty cell."""
    blocks = []
    for section in sections:
        if not section.tables:
            blocks.append(no_table(section))
            continue
        blocks.append(f"Model selection: {section.method.title}\n{sentence(section.method.about)}")
        blocks.extend(_table(table, section.method) for table in section.tables)
        blocks.extend(["\n".join(f"- {note}" for note in section.notes)] if section.notes else [])
    legend = "* best in its column, ' second best"
    if any(table.has_empty_cells for section in sections for table in section.tables):
        legend += f", {EMPTY} no value: the reason is below the table"
    return "\n\n".join([*blocks, legend]) + "\n"


def _table(table: Table, method: Selection) -> str:
    rows: list[list[str] | str] = []
    for label, cells in table.rows.items():
        marks = [
            "*" if (label, i) in table.best else "'" if (label, i) in table.second else " " for i in range(len(cells))
        ]
        shown = [
            number(cell, " ± ", table.trials) + mark + (significance(table, label, i) or " " * bool(table.differing))
            for i, (cell, mark) in enumerate(zip(cells, marks, strict=True))
        ]
        rows.append([row_name(table, label), *shown])
    if table.published:
        rows.append(SEPARATING_LINE)
    rows += [[row.label, *(f"{published_number(cell, ' ± ')} " for cell in row.cells)] for row in table.published]
    alignment = ("left", *["right"] * len(table.columns))
    headers = [table.corner, *table.columns]
    body = tabulate(rows, headers, disable_numparse=True, colalign=alignment, preserve_whitespace=True)
    notes = [f"- {note}" for note in table.notes]
    return "\n".join([caption(table, method), body, *notes, *_draws(table, method)])


def _draws(table: Table, method: Selection) -> list[str]:
    if not table.draws:
        return []
    body = tabulate(draw_rows(table), DRAW_COLUMNS, disable_numparse=True)
    return ["", draws_caption(table, method), body]
