"""Tables as DataFrames with a line per cell; notebooks show them as formatted tables."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from dg_batchformer.tables.render.html import notebook_html
from dg_batchformer.tables.table import Cell, Section, Table

COLUMNS = (
    "selection", "table", "row", "column", "mean", "standard_error", "n", "source", "significance", "differs",
    "deviations",
)  # fmt: skip
_DRAWS = "draws"


class TableFrame(pd.DataFrame):
    """The cells of a section's tables, shown by notebooks as formatted tables; derived frames are plain DataFrames."""

    _metadata = ["section"]
    section: Section

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def _repr_html_(self) -> str:
        return notebook_html(self.section)


def section_frame(section: Section) -> TableFrame:
    """Return the cells of a section's tables, see ``cells_frame``."""
    frame = TableFrame(cells_frame([section]))
    frame.section = section
    return frame


def cells_frame(sections: Sequence[Section]) -> pd.DataFrame:
    """Return one line per cell: mean and standard error in percent over ``n`` trials.

    ``source`` is empty for our rows, else the BibTeX key of a published row; empty published cells are left out.
    ``differs`` lists differences of a row from most others beyond its algorithm, ``deviations`` those from its
    protocol. ``draws`` lists the selected draw and step of every trial; it is absent if the tables have no draws.
    """
    cells = [
        {
            **_line(section, table, label, name, cell, ""),
            "significance": table.differing.get((label, column), ""),
            "differs": "; ".join(table.conditions.differs.get(label, ())),
            "deviations": "; ".join(table.conditions.deviations.get(label, ())),
            _DRAWS: "; ".join(_draws(table, label, name)),
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
    has_draws = any(table.draws for section in sections for table in section.tables)
    columns = [*COLUMNS, *[_DRAWS] * has_draws]
    return pd.DataFrame([*cells, *published], columns=columns).astype(
        {"n": "Int64", "mean": float, "standard_error": float}
    )


def _draws(table: Table, row: str, column: str) -> list[str]:
    """Return the selected draws of a cell, one text per trial."""
    return [
        f"trial {draw.trial}: {f'draw {draw.draw}' if draw.kind == 'draw' else draw.kind} at step {draw.step}"
        + "".join(f", {name} {value}" for name, value in draw.hparams.items())
        for draw in table.draws
        if (draw.label, draw.environment) == (row, column)
    ]


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
