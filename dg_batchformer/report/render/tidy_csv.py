"""Tables for other programs: one line per cell."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from dg_batchformer.report.table import Cell, Section, Table


def tidy_csv(sections: Sequence[Section]) -> str:
    """Return every cell as a line: selection, table, row, column, mean and error in percent, n, source.

    The source is empty for ours, else the BibTeX key of what a published row cites; cells that are not published
    are left out.
    """
    cells = [
        _line(section, table, label, name, cell, "")
        for section in sections
        for table in section.tables
        for label, row in table.rows.items()
        for name, cell in zip(table.columns, row, strict=True)
    ]
    published = [
        _line(section, table, row.label, name, cell, row.key)
        for section in sections
        for table in section.tables
        for row in table.published
        for name, cell in zip(table.columns, row.cells, strict=True)
        if cell.mean is not None
    ]
    return pd.DataFrame([*cells, *published]).astype({"n": "Int64"}).to_csv(index=False)


def _line(section: Section, table: Table, row: str, column: str, cell: Cell, source: str) -> dict[str, Any]:
    return {
        "selection": section.method.name,
        "table": table.title,
        "row": row,
        "column": column,
        "mean": cell.mean,
        "standard_error": cell.error,
        "n": None if source else cell.n,
        "source": source,
    }
