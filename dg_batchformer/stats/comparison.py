"""Rows of a sweep against a baseline row, as data: what was paired, what came out, and what it allows to say."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from dg_batchformer.errors import InputError, unknown
from dg_batchformer.results.collection import Collection
from dg_batchformer.results.row_conditions import RowConditions, by_benchmark, joined
from dg_batchformer.results.scores import Scores, score
from dg_batchformer.results.selection import METHODS, Method
from dg_batchformer.stats.pairs import Block, accuracy, by_dataset, mean_difference, pair
from dg_batchformer.stats.statistics import (
    Interval,
    Outcomes,
    count_intervals,
    count_outcomes,
    holm,
    mean_interval,
    sign_test_p,
    signed_rank_p,
)


class Verdict(StrEnum):
    """What the runs say of a row against its baseline."""

    BETTER = "better"
    WORSE = "worse"
    EQUAL = "equal"
    OPEN = "open"  # the interval contains 0
    FEW = "too few environments or trials"  # no interval
    EMPTY = "no pairs"


class Missing(NamedTuple):
    """A declared pair that is left out, and the rows that have no test accuracy there."""

    dataset: str
    environment: str
    trial: int
    lacking: tuple[str, ...]


class PValue(NamedTuple):
    """A p-value, as tested and Holm-corrected; None below six environments."""

    plain: float | None
    corrected: float | None


@dataclass(frozen=True)
class Comparison:
    """Row B (``other``) against row A (``baseline``), by one selection method.

    Args:
        mean: B less A in percentage points, averaged as DomainBed averages; None without pairs.
        interval: of the mean, 95 %, corrected for ``family``; None below two environments or two trials.
        family: how many comparisons the interval holds together with.
        num_tests: how many rows were tested against A: p-values are corrected for them.
        conditions: in what B differs from A beside its algorithm, and both from their protocol.

    """

    method: Method
    baseline: str
    other: str
    blocks: Sequence[Block]
    missing: Sequence[Missing]
    mean: float | None
    interval: Interval | None
    family: int
    outcomes: Outcomes
    signed_rank: PValue
    sign_test: PValue
    num_tests: int
    conditions: RowConditions

    @property
    def verdict(self) -> Verdict:
        """What may be said."""
        return judge(self.interval) if self.blocks else Verdict.EMPTY


def judge(interval: Interval | None) -> Verdict:
    """Return what the interval of a mean difference allows to say, judged on bounds as they are printed."""
    if interval is None:
        return Verdict.FEW
    low, high = (round(bound, 1) for bound in interval)
    if low > 0:
        return Verdict.BETTER
    if high < 0:
        return Verdict.WORSE
    return Verdict.EQUAL if low == high else Verdict.OPEN


def compare_rows(
    collection: Collection, baseline: str, others: Sequence[str], methods: Sequence[str]
) -> list[Comparison]:
    """Compare rows with a baseline, by some selection methods; raise InputError for rows that are not there."""
    check_rows(collection, [baseline, *others])
    repeated = sorted({label for label in others if [baseline, *others].count(label) > 1})
    if repeated:
        raise InputError(f"{repeated[0]!r} is given twice; a comparison takes different rows")
    pairs = [(baseline, other) for other in others]
    return [comparison for name in methods for comparison in compare_pairs(collection, pairs, METHODS[name])]


def check_rows(collection: Collection, labels: Sequence[str]) -> None:
    """Raise InputError, naming what is near, for a label that is no row."""
    for label in labels:
        if label not in collection.rows:
            raise unknown("row", label, collection.rows)


def compare_pairs(
    collection: Collection, pairs: Sequence[tuple[str, str]], method: Method, *, family: int | None = None
) -> list[Comparison]:
    """Compare pairs of rows (A, B), with intervals and p-values corrected for their number.

    Args:
        family: from how many pairs these were chosen by their results; None where they were not.

    """
    scores = score(collection, method)
    paired = [pair(scores, collection.environments, baseline, other) for baseline, other in pairs]
    family = family or count_intervals(paired)
    signed_ranks = _corrected([signed_rank_p(blocks) for blocks in paired])
    sign_tests = _corrected([sign_test_p(blocks) for blocks in paired])
    return [
        Comparison(
            method=method,
            baseline=baseline,
            other=other,
            blocks=blocks,
            missing=_missing(collection, scores, blocks, (baseline, other)),
            mean=mean_difference(blocks) if blocks else None,
            interval=mean_interval(blocks, family=family),
            family=family,
            outcomes=count_outcomes(blocks),
            signed_rank=signed_rank,
            sign_test=sign_test,
            num_tests=sum(p.plain is not None for p in signed_ranks),
            conditions=_conditions(collection, blocks, (baseline, other)),
        )
        for (baseline, other), blocks, signed_rank, sign_test in zip(
            pairs, paired, signed_ranks, sign_tests, strict=True
        )
    ]


def _conditions(collection: Collection, blocks: Sequence[Block], rows: tuple[str, str]) -> RowConditions:
    said = by_benchmark([run for run in collection.runs if run.label in rows], rows)
    return joined(said, list(by_dataset(blocks)))


def _corrected(p_values: Sequence[float | None]) -> list[PValue]:
    return [PValue(plain, corrected) for plain, corrected in zip(p_values, holm(p_values), strict=True)]


def _missing(collection: Collection, scores: Scores, blocks: Sequence[Block], rows: tuple[str, str]) -> list[Missing]:
    """Return the pairs that runs of either row were declared for, and that are not there."""
    declared = {
        (run.benchmark, env, run.trial_seed) for run in collection.runs if run.label in rows for env in run.reported
    }
    there = {(block.dataset, block.environment, trial) for block in blocks for trial in block.trials}
    return [
        Missing(dataset, name, trial, tuple(row for row in rows if accuracy(scores, dataset, row, env, trial) is None))
        for dataset, names in collection.environments.items()
        for env, name in enumerate(names)
        for trial in sorted(trial for place, held_out, trial in declared if (place, held_out) == (dataset, env))
        if (dataset, name, trial) not in there
    ]
