"""Render tables as Markdown: best in bold, second best underlined."""

from collections.abc import Sequence

from tabulate import tabulate

from dg_batchformer.results.selection import Selection
from dg_batchformer.tables.render.wording import (
    DRAW_COLUMNS,
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
from dg_batchformer.text.printable import in_markdown


def markdown(sections: Sequence[Section]) -> str:
    """Render tables as GitHub Markdown."""
    blocks = []
    for section in sections:
        if not section.tables:
            blocks.append(in_markdown(f"{no_table(section)}."))
            continue
        blocks.append(f"## Model selection: {section.method.title}\n\n{in_markdown(sentence(section.method.about))}")
        blocks.extend(_table(table, section.method) for table in section.tables)
        blocks.extend(_list(section.notes))
    return "\n\n".join(blocks) + "\n"


def _table(table: Table, method: Selection) -> str:
    columns = range(len(table.columns))
    rows = [
        [in_markdown(row_name(table, label)), *(_cell(table, label, column) for column in columns)]
        for label in table.rows
    ]
    for row in table.published:
        rows.append([in_markdown(row.label), *(published_number(cell, " ± ") for cell in row.cells)])
    headers = [in_markdown(header) for header in (table.corner, *table.columns)]
    alignment = ("left", *["right"] * len(table.columns))
    body = tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True, colalign=alignment)
    below = [*_list(table.notes), *_draws(table, method)]
    return "\n\n".join([f"### {in_markdown(caption(table, method))}", body, *below])


def _draws(table: Table, method: Selection) -> list[str]:
    if not table.draws:
        return []
    rows = [list(map(in_markdown, row)) for row in draw_rows(table)]
    body = tabulate(rows, DRAW_COLUMNS, tablefmt="pipe", disable_numparse=True)
    return [f"#### {in_markdown(draws_caption(table, method))}", body]


def _list(notes: Sequence[str]) -> list[str]:
    return ["\n".join(f"- {in_markdown(note)}" for note in notes)] if notes else []


def _cell(table: Table, label: str, column: int) -> str:
    shown = number(table.rows[label][column], " ± ", table.trials) + significance(table, label, column)
    if (label, column) in table.best:
        return f"**{shown}**"
    return f"<u>{shown}</u>" if (label, column) in table.second else shown
