"""Tables as JSON, with everything that the other formats show.

The document is an object with ``format`` (1; increases if a name changes) and ``sections``, one per selection method:

* ``selection``, ``title``, ``about``: the method; ``notes``: which datasets have no table, and why; ``tables``.

A table has

* ``title`` (a dataset, or Averages), ``metric`` (a name of ``tables --metric``), ``corner`` (kind of columns),
  ``columns`` (their names), ``trials``, ``notes``;
* ``rows``, ours: ``label``; ``differs``: differences from most other rows beyond the algorithm; ``deviations``: from
  the protocol; ``cells``, one per column: ``mean`` and ``error`` in percent, null if missing, such as the error of one
  trial; ``n`` trials; ``mark``: ``best``, ``second`` or null; ``significance``: ``above`` or ``below`` the baseline
  row, or null;
* ``published``: ``label``, ``algorithm``, ``key`` (of its BibTeX entry), ``source`` (citation and location) and
  ``cells`` with ``mean`` and ``error``;
* ``provenance``: null without finished runs, else ``runs``, ``trials``, ``draws``, ``protocols``, ``precisions``,
  ``data_paths``, ``devices``, ``fingerprints`` and ``versions``, with all values that occur;
* ``draws``, only with ``--hparams``: ``label``, ``environment``, ``trial``, ``draw``, ``step`` and ``hparams`` (those
  that differ between draws, as text), and ``kind``: ``draw``, ``grid point`` or ``winner`` (of a search).
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from math import isfinite
from typing import Any

from dg_batchformer.tables.table import Cell, Section, Table

_FORMAT = 1


def as_json(sections: Sequence[Section]) -> str:
    """Render tables as a JSON document; the module docstring describes it."""
    content = {"format": _FORMAT, "sections": [_section(section) for section in sections]}
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _section(section: Section) -> dict[str, Any]:
    return {
        "selection": section.method.name,
        "title": section.method.title,
        "about": section.method.about,
        "notes": list(section.notes),
        "tables": [_table(table) for table in section.tables],
    }


def _table(table: Table) -> dict[str, Any]:
    rows = [
        {
            "label": label,
            "differs": list(table.conditions.differs.get(label, ())),
            "deviations": list(table.conditions.deviations.get(label, ())),
            "cells": [_cell(table, label, column, cell) for column, cell in enumerate(cells)],
        }
        for label, cells in table.rows.items()
    ]
    published = [
        {
            "label": row.label,
            "algorithm": row.algorithm,
            "key": row.key,
            "source": row.source,
            "cells": [_number(cell) for cell in row.cells],
        }
        for row in table.published
    ]
    return {
        "title": table.title,
        "metric": table.metric.name,
        "corner": table.corner,
        "columns": list(table.columns),
        "trials": table.trials,
        "rows": rows,
        "published": published,
        "notes": list(table.notes),
        "provenance": asdict(table.provenance) if table.provenance else None,
        **({"draws": [asdict(draw) for draw in table.draws]} if table.draws else {}),
    }


def _cell(table: Table, label: str, column: int, cell: Cell) -> dict[str, Any]:
    significance = table.differing.get((label, column))
    return {**_number(cell), "n": cell.n, "mark": _mark(table, label, column), "significance": significance}


def _number(cell: Cell) -> dict[str, float | None]:
    return {
        name: value if value is not None and isfinite(value) else None
        for name, value in (("mean", cell.mean), ("error", cell.error))
    }


def _mark(table: Table, label: str, column: int) -> str | None:
    if (label, column) in table.best:
        return "best"
    return "second" if (label, column) in table.second else None
