"""Show some columns of tables only."""

from collections.abc import Sequence
from dataclasses import replace

from dg_batchformer.errors import unknown
from dg_batchformer.tables.table import Cell, Section, Table


def with_columns(sections: Sequence[Section], names: Sequence[str]) -> list[Section]:
    """Return sections whose tables have the named columns only, in this order; tables without any are left out.

    Averages stay those over all environments. Raises InputError for a name that no table has.
    """
    known = dict.fromkeys(name for section in sections for table in section.tables for name in table.columns)
    for name in names:
        if known and name not in known:
            raise unknown("column", name, known)
    wanted = list(dict.fromkeys(names))
    return [
        replace(section, tables=[table for whole in section.tables if (table := _only(whole, wanted)).columns])
        for section in sections
    ]


def _only(table: Table, names: Sequence[str]) -> Table:
    """Return a table with the named columns that it has; an environment may share its name with a summary."""
    places = [place for name in names for place, column in enumerate(table.columns) if column == name]
    moved = {place: new for new, place in enumerate(places)}

    def kept(cells: Sequence[Cell]) -> list[Cell]:
        return [cells[place] for place in places]

    hidden = [name for place, name in enumerate(table.columns) if place not in moved]
    note = [f"not shown: {', '.join(hidden)}"] if hidden else []
    return replace(
        table,
        columns=[table.columns[place] for place in places],
        rows={label: kept(cells) for label, cells in table.rows.items()},
        best=frozenset((label, moved[place]) for label, place in table.best if place in moved),
        second=frozenset((label, moved[place]) for label, place in table.second if place in moved),
        differing={(label, moved[place]): of for (label, place), of in table.differing.items() if place in moved},
        published=[replace(row, cells=kept(row.cells)) for row in table.published],
        notes=[*table.notes, *note],
    )
