"""A confidence interval of the mean difference of two rows, and significance tests.

The model of a paired difference: mean + environment effect + trial effect (shared by all environments of a trial) +
noise. An environment has one effect, in whichever settings of its dataset it appears. Environments of a dataset share
training data, as each is trained on when another is held out; no method here accounts for that dependence.
"""

from collections import defaultdict
from collections.abc import Sequence
from math import nan, sqrt
from statistics import stdev
from typing import NamedTuple

import numpy as np

from dg_batchformer.stats.pairs import Block, effects, mean_difference, weights

MIN_ENVIRONMENTS = 6
"""A two-sided test on fewer environments cannot reach p = 0.05: five that all agree give 2 / 2**5 = 0.0625."""

ALPHA = 0.05
LEVEL = 1 - ALPHA


class Interval(NamedTuple):
    """Confidence interval of a mean difference, in percentage points."""

    low: float
    high: float


class Variance(NamedTuple):
    """An estimated variance of the mean difference, and its degrees of freedom."""

    value: float
    df: float


def mean_interval(blocks: Sequence[Block], *, family: int = 1) -> Interval | None:
    """Return the 95 % confidence interval of the mean difference; None for fewer than two environments or two trials.

    Two t intervals, one over environments and one over trials, are added in quadrature (Cochran's rule for variances
    with different degrees of freedom). Noise enters both, so for normally distributed effects the interval is
    conservative: ``tools/simulate_compare.py`` simulates its coverage and power.

    Args:
        family: number of intervals with a joint coverage of 95 % (Bonferroni).

    """
    if not has_interval(blocks):
        return None
    parts = (_over_environments(blocks), _over_trials(blocks))
    half = sqrt(sum(variance.value * _t_quantile(variance.df, family) ** 2 for variance in parts))
    mean = mean_difference(blocks)
    return Interval(mean - half, mean + half)


def half_interval(values: Sequence[float]) -> float:
    """Return half the width of the 95 % t interval of the mean of values; NaN for fewer than two."""
    if len(values) < 2:
        return nan
    return _t_quantile(len(values) - 1) * stdev(values) / sqrt(len(values))


def _t_quantile(df: float, family: int = 1) -> float:
    """Return the two-sided quantile of the t distribution, corrected for a family of intervals."""
    from scipy.special import stdtrit

    return float(stdtrit(df, 1 - ALPHA / family / 2))


def has_interval(blocks: Sequence[Block]) -> bool:
    """Return whether there are at least two environments and two trials."""
    return len(effects(blocks)) > 1 and max_trials(blocks) > 1


def count_intervals(rows: Sequence[Sequence[Block]]) -> int:
    """Return how many comparisons have an interval: the number to correct each for."""
    return sum(map(has_interval, rows))


def max_trials(blocks: Sequence[Block]) -> int:
    """Return the largest number of trials of an environment; 0 without blocks."""
    return max((len(block.trials) for block in blocks), default=0)


def _over_environments(blocks: Sequence[Block]) -> Variance:
    """Estimate the variance of the mean due to environments, which vary around the mean of their dataset.

    If a dataset has only one environment, all environments are taken to vary around one common mean.
    """
    strata: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for effect in effects(blocks):
        strata[effect.dataset].append((effect.difference, effect.weight))
    if any(len(stratum) == 1 for stratum in strata.values()):
        strata = {"": [effect for stratum in strata.values() for effect in stratum]}
    parts = []
    for stratum in strata.values():
        differences, shares = np.array(stratum).T
        parts.append(Variance(float(differences.var(ddof=1) * (shares**2).sum()), len(stratum) - 1))
    total = sum(part.value for part in parts)
    if total == 0:
        return Variance(0.0, 1)
    return Variance(total, total**2 / sum(part.value**2 / part.df for part in parts))  # Welch and Satterthwaite


def _over_trials(blocks: Sequence[Block]) -> Variance:
    """Estimate the variance of the mean due to trials, whose effects are shared by all of their environments.

    The deviation of a trial is the weighted mean of its environments' deviations from their own means, scaled by
    sqrt(n / (n - 1)) for n trials. Environments with a single trial do not contribute to the estimate, but their share
    in the mean does.
    """
    trials = sorted({trial for block in blocks for trial in block.trials})
    there = np.array([[trial in block.trials for trial in trials] for block in blocks])  # [blocks, trials]
    deviations = np.zeros(there.shape)
    for row, has, block in zip(deviations, there, blocks, strict=True):
        row[has] = np.array(block.differences) - block.difference
    n, of_blocks = there.sum(axis=1, keepdims=True), np.array(weights(blocks))[:, None]
    shares = (of_blocks / n * there).sum(axis=0)  # of every trial in the mean
    telling = of_blocks * (there & (n > 1))
    scale = np.sqrt(n / np.maximum(n - 1, 1))
    known = telling.any(axis=0)
    found = (telling * scale * deviations).sum(axis=0)[known] / telling.sum(axis=0)[known]
    return Variance(float((found**2).mean() * (shares**2).sum()), int(n.max()) - 1)


class Outcomes(NamedTuple):
    """Numbers of environments on which B is above A, equal to one decimal, and below."""

    wins: int
    ties: int
    losses: int


def count_outcomes(blocks: Sequence[Block]) -> Outcomes:
    """Count wins, ties and losses of B; a tie is a difference that prints as 0.0."""
    signs = [np.sign(round(effect.difference, 1)) for effect in effects(blocks)]
    return Outcomes(signs.count(1), signs.count(0), signs.count(-1))


def signed_rank_p(blocks: Sequence[Block]) -> float | None:
    """Return the p-value of Wilcoxon's signed-rank test on environments; None for fewer than six of them.

    Zero differences are dropped, as in Wilcoxon's original test; p is 1 if none remain.
    """
    found = effects(blocks)
    if len(found) < MIN_ENVIRONMENTS:
        return None
    differences = np.round([effect.difference for effect in found], 6)  # ties up to rounding errors count as ties
    differing = differences[differences != 0]
    if len(differing) == 0:
        return 1.0
    from scipy.stats import wilcoxon

    return float(wilcoxon(differing).pvalue)


def sign_test_p(blocks: Sequence[Block]) -> float | None:
    """Return the p-value of the sign test on wins and losses, without ties; None for fewer than six environments."""
    if len(effects(blocks)) < MIN_ENVIRONMENTS:
        return None
    wins, _, losses = count_outcomes(blocks)
    if wins + losses == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(wins, wins + losses).pvalue)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct p-values for multiple tests (Holm, 1979), keeping their order; None stays None and does not count."""
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        corrected[place] = largest
    return corrected
