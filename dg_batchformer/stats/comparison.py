"""Compare rows of a sweep with a baseline row: pairs, mean difference, interval, p-values and verdict."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from dg_batchformer.errors import InputError, unknown
from dg_batchformer.results.collection import Collection
from dg_batchformer.results.metrics import ACCURACY, Measurements, Metric
from dg_batchformer.results.row_conditions import RowConditions, by_benchmark, joined
from dg_batchformer.results.scores import Scores, score
from dg_batchformer.results.selection import METHODS, Method
from dg_batchformer.stats.pairs import Block, accuracy, blocks_by_benchmark, mean_difference, pair
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
    """Outcome of comparing a row with its baseline."""

    BETTER = "better"
    WORSE = "worse"
    EQUAL = "equal"
    OPEN = "open"  # the interval contains 0
    FEW = "too few environments or trials"  # no interval
    EMPTY = "no pairs"


class Missing(NamedTuple):
    """A declared pair without a result, and the rows that lack a test accuracy."""

    benchmark: str
    environment: str
    trial: int
    lacking: tuple[str, ...]


class PValue(NamedTuple):
    """A p-value, before and after Holm correction; None for fewer than six environments."""

    plain: float | None
    corrected: float | None


@dataclass(frozen=True)
class Comparison:
    """Row B (``other``) against row A (``baseline``), under one selection method.

    Args:
        mean: B minus A in percentage points, averaged as in DomainBed; None without pairs.
        interval: 95 % confidence interval of the mean, Bonferroni-corrected; None for fewer than two environments or
            two trials.
        family: number of comparisons that ``interval`` is corrected for.
        num_tests: number of rows tested against A, which p-values are corrected for.
        conditions: differences between B and A beyond the algorithm, and of both from their protocol.
        metric: the metric compared.

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
    metric: Metric = ACCURACY

    @property
    def verdict(self) -> Verdict:
        """The verdict: from the interval, or EMPTY without pairs."""
        return judge(self.interval) if self.blocks else Verdict.EMPTY


def judge(interval: Interval | None) -> Verdict:
    """Return the verdict for an interval of a mean difference; bounds are rounded as printed."""
    if interval is None:
        return Verdict.FEW
    low, high = (round(bound, 1) for bound in interval)
    if low > 0:
        return Verdict.BETTER
    if high < 0:
        return Verdict.WORSE
    return Verdict.EQUAL if low == high else Verdict.OPEN


def compare_rows(
    collection: Collection, baseline: str, others: Sequence[str], methods: Sequence[str], metric: Metric = ACCURACY
) -> list[Comparison]:
    """Compare rows with a baseline under selection methods; raise InputError for unknown or repeated rows."""
    check_rows(collection, [baseline, *others])
    repeated = sorted({label for label in others if [baseline, *others].count(label) > 1})
    if repeated:
        raise InputError(f"{repeated[0]!r} is given twice; a comparison needs different rows")
    pairs = [(baseline, other) for other in others]
    return [
        comparison for name in methods for comparison in compare_pairs(collection, pairs, METHODS[name], metric=metric)
    ]


def check_rows(collection: Collection, labels: Sequence[str]) -> None:
    """Raise InputError, with suggestions, for a label that is not a row."""
    for label in labels:
        if label not in collection.rows:
            raise unknown("row", label, collection.rows)


def compare_pairs(
    collection: Collection,
    pairs: Sequence[tuple[str, str]],
    method: Method,
    *,
    family: int | None = None,
    metric: Metric = ACCURACY,
) -> list[Comparison]:
    """Compare pairs of rows (A, B); intervals and p-values are corrected for the number of pairs.

    Args:
        family: number of candidate pairs, if these were chosen among them by their results.

    """
    scores = score(collection, method, Measurements(metric))
    paired = [pair(scores, collection.environments, collection.datasets, baseline, other) for baseline, other in pairs]
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
            metric=metric,
        )
        for (baseline, other), blocks, signed_rank, sign_test in zip(
            pairs, paired, signed_ranks, sign_tests, strict=True
        )
    ]


def _conditions(collection: Collection, blocks: Sequence[Block], rows: tuple[str, str]) -> RowConditions:
    said = by_benchmark([run for run in collection.runs if run.label in rows], rows)
    return joined(said, list(blocks_by_benchmark(blocks)))


def _corrected(p_values: Sequence[float | None]) -> list[PValue]:
    return [PValue(plain, corrected) for plain, corrected in zip(p_values, holm(p_values), strict=True)]


def _missing(collection: Collection, scores: Scores, blocks: Sequence[Block], rows: tuple[str, str]) -> list[Missing]:
    """Return the pairs that are declared for either row but have no result."""
    declared = {
        (run.benchmark, env, run.trial_seed) for run in collection.runs if run.label in rows for env in run.reported
    }
    there = {(block.benchmark, block.environment, trial) for block in blocks for trial in block.trials}
    return [
        Missing(
            benchmark, name, trial, tuple(row for row in rows if accuracy(scores, benchmark, row, env, trial) is None)
        )
        for benchmark, names in collection.environments.items()
        for env, name in enumerate(names)
        for trial in sorted(trial for place, held_out, trial in declared if (place, held_out) == (benchmark, env))
        if (benchmark, name, trial) not in there
    ]
