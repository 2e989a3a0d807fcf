"""Is row B better than row A? An interval of the mean difference, and tests.

Environments of a dataset are trained on when another one is held out, so blocks are not independent: intervals and
p-values are optimistic.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dg_batchformer.report.pairs import Block, by_dataset

MIN_BLOCKS = 6
"""A two-sided test of fewer blocks cannot reach p = 0.05: five that all agree give 2 / 2**5 = 0.0625."""

ALPHA = 0.05
LEVEL = 1 - ALPHA
RESAMPLES = 10_000


def bootstrap_interval(blocks: Sequence[Block], *, resamples: int = RESAMPLES) -> tuple[float, float] | None:
    """Return the 95 % percentile interval of the mean difference; None for fewer than two blocks.

    Hierarchical and paired: environments are drawn anew within their dataset, then trials within each environment.
    The datasets are taken as given; environments that are alone in theirs are drawn from among each other. Of n
    environments n - 1 are drawn, since drawing n makes the interval of a few too narrow (Rao and Wu, 1988: Resampling
    inference with complex survey data). On normal data with 3 trials it held the truth in 84 to 96 of 100 cases with
    4 environments, 91 to 97 with 8, and 93 to 99 with 22: the less, the more environments differ in how much B helps.
    The same blocks always give the same interval.
    """
    if len(blocks) < 2:
        return None
    datasets = by_dataset(blocks).values()
    alone = [block for dataset in datasets if len(dataset) == 1 for block in dataset]
    strata = [dataset for dataset in datasets if len(dataset) > 1]
    weights = [1] * len(strata)  # a stratum counts for the datasets that are in it
    if alone:
        strata, weights = [*strata, alone], [*weights, len(alone)]
    rng = np.random.default_rng(0)
    means = np.average([_resample(rng, stratum, resamples) for stratum in strata], axis=0, weights=weights)
    low, high = np.quantile(means, [ALPHA / 2, 1 - ALPHA / 2])
    return float(low), float(high)


def _resample(rng: np.random.Generator, blocks: Sequence[Block], resamples: int) -> npt.NDArray[np.float64]:
    """Return the mean difference over environments in every resample: (resamples,)."""
    drawn = rng.integers(len(blocks), size=(resamples, max(len(blocks) - 1, 1)))  # an environment for each place
    values = np.empty(drawn.shape)
    for index, block in enumerate(blocks):
        differences = np.array(block.differences)
        places = drawn == index
        trials = rng.integers(len(differences), size=(np.count_nonzero(places), len(differences)))
        values[places] = differences[trials].mean(axis=1)
    return values.mean(axis=1)


class Outcomes(NamedTuple):
    """In how many blocks B is above A, equal as printed, and below."""

    wins: int
    ties: int
    losses: int


def count_outcomes(blocks: Sequence[Block]) -> Outcomes:
    """Count wins, ties and losses of B; a tie is a difference that prints as 0.0."""
    signs = [np.sign(round(block.difference, 1)) for block in blocks]
    return Outcomes(signs.count(1), signs.count(0), signs.count(-1))


def signed_rank_p(blocks: Sequence[Block]) -> float | None:
    """Return p of Wilcoxon's signed-rank test on the differences of blocks; None below six blocks.

    Blocks without a difference are left out, as Wilcoxon did; p is 1 if that leaves none.
    """
    if len(blocks) < MIN_BLOCKS:
        return None
    differences = np.round([block.difference for block in blocks], 6)  # equal but for rounding errors is equal
    differing = differences[differences != 0]
    if len(differing) == 0:
        return 1.0
    from scipy.stats import wilcoxon

    return float(wilcoxon(differing).pvalue)


def sign_test_p(blocks: Sequence[Block]) -> float | None:
    """Return p of the sign test: were wins and losses equally likely? Ties are left out. None below six blocks."""
    if len(blocks) < MIN_BLOCKS:
        return None
    wins, _, losses = count_outcomes(blocks)
    if wins + losses == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(wins, wins + losses).pvalue)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct p-values for their number (Holm, 1979), each in its place; None stays None and does not count."""
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        corrected[place] = largest
    return corrected
