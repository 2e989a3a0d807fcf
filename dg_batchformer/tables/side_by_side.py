"""Compare all selection methods: the average of every row under each."""

from collections.abc import Sequence

from dg_batchformer.results.selection import Selection
from dg_batchformer.tables.table import Cell, Section, Table, marked

_SELECTION = Selection("all", "all methods, side by side", "the averages by every method, as defined above")
_ABOUT = "every column is the Average of that method's own table, whose notes list what is missing"


def side_by_side(sections: Sequence[Section]) -> Section:
    """Return one table per dataset, and one of averages, with one column per method that has this table."""
    found: dict[str, dict[str, Table]] = {}
    for section in sections:
        for table in section.tables:
            found.setdefault(table.title, {})[section.method.name] = table
    tables = [_table(title, by_method) for title, by_method in found.items()]
    return Section(_SELECTION, tables, [], sections[0].metric)


def _table(title: str, by_method: dict[str, Table]) -> Table:
    rows: dict[str, list[Cell]] = {}
    for table in by_method.values():
        column = table.average
        for label, cells in table.rows.items():
            rows.setdefault(label, []).append(cells[column])
    trials = max(table.trials for table in by_method.values())
    metric = next(iter(by_method.values())).metric
    conditions = next(iter(by_method.values())).conditions  # the same for all methods
    notes = [_ABOUT, *conditions.notes]
    return marked(Table(title, "selection", list(by_method), rows, trials, notes, conditions=conditions, metric=metric))
