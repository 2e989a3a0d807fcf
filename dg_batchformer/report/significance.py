"""Marks in tables: which rows differ significantly from a baseline row."""

from collections.abc import Sequence
from dataclasses import replace

from dg_batchformer.report.collection import Collection, how_many
from dg_batchformer.report.comparison import check_rows
from dg_batchformer.report.pairs import Block, mean_difference, pair
from dg_batchformer.report.render.wording import SIGNIFICANCE
from dg_batchformer.report.statistics import ALPHA, MIN_BLOCKS, holm, signed_rank_p
from dg_batchformer.report.table import Section, Table


def mark_significant(sections: Sequence[Section], collection: Collection, baseline: str) -> list[Section]:
    """Return sections whose tables mark, at the average, the rows that differ from a baseline row.

    A row differs if Wilcoxon's signed-rank test on its paired differences by environment gives p < 0.05,
    Holm-corrected for the rows of the table. Raises InputError if no row has that label.
    """
    check_rows(collection, [baseline])
    others = [label for label in collection.rows if label != baseline]
    marked = []
    for section in sections:
        paired = {label: pair(section.scores, collection.environments, baseline, label) for label in others}
        marked.append(replace(section, tables=[_mark(table, paired, baseline) for table in section.tables]))
    return marked


def _mark(table: Table, paired: dict[str, list[Block]], baseline: str) -> Table:
    """Mark the rows of a table, by the blocks of the datasets that it shows."""
    shown = {
        label: [block for block in blocks if block.dataset in table.benchmarks] for label, blocks in paired.items()
    }
    p_values = dict(zip(shown, holm([signed_rank_p(blocks) for blocks in shown.values()]), strict=True))
    column = table.average
    differing = {
        (label, column): "above" if mean_difference(shown[label]) > 0 else "below"
        for label, p in p_values.items()
        if p is not None and p < ALPHA and table.rows[label][column].mean is not None
    }
    tested = sum(p is not None for p in p_values.values())
    notes = [*table.notes, _about_marks(baseline, tested, len(differing))]
    return replace(table, differing=differing, notes=notes)


def _about_marks(baseline: str, tested: int, differing: int) -> str:
    if not tested:
        return f"no row is tested against {baseline}: a test needs {MIN_BLOCKS} environments with trials of both"
    test = f"Wilcoxon signed-rank test over environments, Holm-corrected for {how_many(tested, 'row')}, p < {ALPHA}"
    caution = "environments share training data, so p is optimistic"
    if not differing:
        return f"no row differs significantly from {baseline} ({test})"
    above, below = SIGNIFICANCE["above"], SIGNIFICANCE["below"]
    return f"{above} above, {below} below {baseline} significantly ({test}; {caution})"
