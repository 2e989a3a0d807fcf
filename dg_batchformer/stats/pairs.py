"""Paired results of two rows, in blocks.

A pair is a (dataset, environment, trial) that both rows have. Its runs share their splits, and their seeds if the rows
differ only in wrappers, so shared randomness cancels. A block holds the pairs of one environment. A dataset with
several settings (imbalances, or training environments) has several blocks of the same environment, which are not
independent: an effect holds all blocks of an environment.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from statistics import fmean
from typing import NamedTuple

from dg_batchformer.results.scores import Scores


@dataclass(frozen=True)
class Block:
    """The pairs of one environment.

    Args:
        benchmark: the dataset and its setting, which have a table of their own.
        dataset: without the setting.
        environment: its name.
        trials: seeds of the trials that both rows have, ascending.
        baseline, other: test accuracy of rows A and B in percent, by trial.

    """

    benchmark: str
    dataset: str
    environment: str
    trials: tuple[int, ...]
    baseline: tuple[float, ...]
    other: tuple[float, ...]

    @property
    def setting(self) -> str:
        """The setting of the dataset, such as ``long_tail:10`` or ``from photo + sketch``."""
        return self.benchmark.removeprefix(self.dataset).lstrip(", ") or "plain"

    @cached_property
    def differences(self) -> tuple[float, ...]:
        """B minus A in percentage points, by trial."""
        return tuple(b - a for a, b in zip(self.baseline, self.other, strict=True))

    @cached_property
    def baseline_mean(self) -> float:
        """Mean test accuracy of A over trials, in percent."""
        return fmean(self.baseline)

    @cached_property
    def other_mean(self) -> float:
        """Mean test accuracy of B over trials, in percent."""
        return fmean(self.other)

    @cached_property
    def difference(self) -> float:
        """Mean of B minus A over trials, in percentage points."""
        return fmean(self.differences)


def accuracy(scores: Scores, benchmark: str, label: str, env: int, trial: int) -> float | None:
    """Return a test accuracy in percent; None if it is missing or not finite."""
    score = scores.get((benchmark, label, env, trial))
    return 100 * score.test if score is not None and isfinite(score.test) else None


def pair(
    scores: Scores,
    environments: Mapping[str, Sequence[str]],
    datasets: Mapping[str, str],
    baseline: str,
    other: str,
) -> list[Block]:
    """Return the blocks of two rows.

    Args:
        environments: their names by benchmark, in the order of the result.
        datasets: the dataset of every benchmark.

    """
    trials: dict[tuple[str, int], list[int]] = defaultdict(list)
    for benchmark, label, env, trial in sorted(scores):
        if label == baseline:
            trials[benchmark, env].append(trial)
    blocks = []
    for benchmark, names in environments.items():
        for env, name in enumerate(names):
            both = [
                (trial, first, second)
                for trial in trials[benchmark, env]
                for first, second in [[accuracy(scores, benchmark, row, env, trial) for row in (baseline, other)]]
                if first is not None and second is not None
            ]
            if both:
                found, first, second = zip(*both, strict=True)
                blocks.append(Block(benchmark, datasets[benchmark], name, found, first, second))
    return blocks


def blocks_by_benchmark(blocks: Sequence[Block]) -> dict[str, list[Block]]:
    """Group blocks by benchmark."""
    benchmarks: dict[str, list[Block]] = defaultdict(list)
    for block in blocks:
        benchmarks[block.benchmark].append(block)
    return dict(benchmarks)


def weights(blocks: Sequence[Block]) -> list[float]:
    """Return the weight of every block in the mean: benchmarks weigh the same, and so do environments of each."""
    benchmarks = blocks_by_benchmark(blocks)
    return [1 / len(benchmarks) / len(benchmarks[block.benchmark]) for block in blocks]


class Effect(NamedTuple):
    """B minus A on one environment of a dataset.

    Attributes:
        difference: weighted mean over its blocks, in percentage points.
        weight: of the environment in the mean.

    """

    dataset: str
    environment: str
    difference: float
    weight: float


def effects(blocks: Sequence[Block]) -> list[Effect]:
    """Return the effect on every environment, over all settings of its dataset."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for block, weight in zip(blocks, weights(blocks), strict=True):
        found[block.dataset, block.environment].append((block.difference, weight))
    return [
        Effect(*place, sum(difference * weight for difference, weight in parts) / total, total)
        for place, parts in found.items()
        for total in [sum(weight for _, weight in parts)]
    ]


def average(blocks: Sequence[Block], values: Sequence[float]) -> float:
    """Average one value per block as DomainBed does: over environments, then over datasets."""
    benchmarks: dict[str, list[float]] = defaultdict(list)
    for block, value in zip(blocks, values, strict=True):
        benchmarks[block.benchmark].append(value)
    return fmean(fmean(benchmark) for benchmark in benchmarks.values())


def mean_difference(blocks: Sequence[Block]) -> float:
    """Return the mean of B minus A in percentage points, averaged as DomainBed does."""
    return average(blocks, [block.difference for block in blocks])
