"""Tables for other programs: one line per cell."""

from collections.abc import Sequence
from typing import Any

from dg_batchformer.tables.table import Cell, Section, Table
from dg_batchformer.text.printable import in_csv

_COLUMNS = (
    "selection",
    "table",
    "row",
    "column",
    "mean",
    "standard_error",
    "n",
    "source",
    "significance",
    "differs",
    "deviations",
)


def tidy_csv(sections: Sequence[Section]) -> str:
    """Return every cell as a line: selection, table, row, column, mean and error in percent, n, significance, source.

    Then in what the row differs from most others beside its algorithm, and in what it deviates from its protocol.
    The source is empty for ours, else the BibTeX key of what a published row cites; cells that are not published
    are left out.
    """
    import pandas as pd  # takes as long to load as all other formats take to print

    cells = [
        {
            **_line(section, table, label, name, cell, ""),
            "significance": table.differing.get((label, column), ""),
            "differs": in_csv("; ".join(table.conditions.differs.get(label, ()))),
            "deviations": in_csv("; ".join(table.conditions.deviations.get(label, ()))),
        }
        for section in sections
        for table in section.tables
        for label, row in table.rows.items()
        for column, (name, cell) in enumerate(zip(table.columns, row, strict=True))
    ]
    published = [
        _line(section, table, row.label, name, cell, row.key)
        for section in sections
        for table in section.tables
        for row in table.published
        for name, cell in zip(table.columns, row.cells, strict=True)
        if cell.mean is not None
    ]
    return pd.DataFrame([*cells, *published], columns=_COLUMNS).astype({"n": "Int64"}).to_csv(index=False)


def _line(section: Section, table: Table, row: str, column: str, cell: Cell, source: str) -> dict[str, Any]:
    return {
        "selection": section.method.name,
        "table": in_csv(table.title),
        "row": in_csv(row),
        "column": in_csv(column),
        "mean": cell.mean,
        "standard_error": cell.error,
        "n": None if source else cell.n,
        "source": source,
    }
