"""Mark rows that differ significantly from a baseline row."""

from collections.abc import Sequence
from dataclasses import replace

from dg_batchformer.results.collection import Collection
from dg_batchformer.stats.comparison import Verdict, check_rows, judge
from dg_batchformer.stats.pairs import Block, pair
from dg_batchformer.stats.statistics import count_intervals, mean_interval
from dg_batchformer.tables.render.wording import SIGNIFICANCE
from dg_batchformer.tables.table import Section, Table
from dg_batchformer.text.counts import how_many

_MARKS = {Verdict.BETTER: "above", Verdict.WORSE: "below"}


def mark_significant(sections: Sequence[Section], collection: Collection, baseline: str) -> list[Section]:
    """Mark the averages of rows that differ from a baseline row.

    A row differs if the confidence interval of its mean paired difference, corrected for the number of rows, excludes
    0, as in ``compare``. Raises InputError if there is no row with the label ``baseline``.
    """
    check_rows(collection, [baseline])
    others = [label for label in collection.rows if label != baseline]
    marked = []
    for section in sections:
        scores, environments, datasets = section.scores, collection.environments, collection.datasets
        paired = {label: pair(scores, environments, datasets, baseline, label) for label in others}
        marked.append(replace(section, tables=[_mark(table, paired, baseline) for table in section.tables]))
    return marked


def _mark(table: Table, paired: dict[str, list[Block]], baseline: str) -> Table:
    """Mark the rows of a table, based on the blocks of its datasets."""
    shown = {
        label: [block for block in blocks if block.benchmark in table.benchmarks] for label, blocks in paired.items()
    }
    family = count_intervals(list(shown.values()))
    verdicts = {label: judge(mean_interval(blocks, family=family)) for label, blocks in shown.items()}
    column = table.average
    differing = {
        (label, column): _MARKS[verdict]
        for label, verdict in verdicts.items()
        if verdict in _MARKS and table.rows[label][column].mean is not None
    }
    notes = [*table.notes, _about_marks(baseline, family, len(differing))]
    return replace(table, differing=differing, notes=notes)


def _about_marks(baseline: str, family: int, differing: int) -> str:
    if not family:
        return f"no row is compared with {baseline}: both rows need at least 2 environments and 2 trials"
    test = f"95 % interval of the mean paired difference, corrected for {how_many(family, 'row')}; see compare"
    if not differing:
        return f"no row differs significantly from {baseline} ({test})"
    above, below = SIGNIFICANCE["above"], SIGNIFICANCE["below"]
    return f"{above} above, {below} below {baseline} significantly ({test})"
