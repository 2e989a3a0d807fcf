"""Paired results of two rows, in blocks.

A pair is a (dataset, environment, trial) that both rows have. Its runs share their splits, and their seeds if the rows
differ only in wrappers, so shared randomness cancels. A block holds the pairs of one environment.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from statistics import fmean

from dg_batchformer.results.scores import Scores


@dataclass(frozen=True)
class Block:
    """The pairs of one environment.

    Args:
        environment: its name.
        trials: seeds of the trials that both rows have, ascending.
        baseline, other: test accuracy of rows A and B in percent, by trial.

    """

    dataset: str
    environment: str
    trials: tuple[int, ...]
    baseline: tuple[float, ...]
    other: tuple[float, ...]

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


def accuracy(scores: Scores, dataset: str, label: str, env: int, trial: int) -> float | None:
    """Return a test accuracy in percent; None if it is missing or not finite."""
    score = scores.get((dataset, label, env, trial))
    return 100 * score.test if score is not None and isfinite(score.test) else None


def pair(scores: Scores, environments: Mapping[str, Sequence[str]], baseline: str, other: str) -> list[Block]:
    """Return the blocks of two rows, in the order of ``environments`` (names by dataset)."""
    trials: dict[tuple[str, int], list[int]] = defaultdict(list)
    for dataset, label, env, trial in sorted(scores):
        if label == baseline:
            trials[dataset, env].append(trial)
    blocks = []
    for dataset, names in environments.items():
        for env, name in enumerate(names):
            both = [
                (trial, first, second)
                for trial in trials[dataset, env]
                for first, second in [[accuracy(scores, dataset, row, env, trial) for row in (baseline, other)]]
                if first is not None and second is not None
            ]
            if both:
                found, first, second = zip(*both, strict=True)
                blocks.append(Block(dataset, name, found, first, second))
    return blocks


def by_dataset(blocks: Sequence[Block]) -> dict[str, list[Block]]:
    """Group blocks by dataset."""
    datasets: dict[str, list[Block]] = defaultdict(list)
    for block in blocks:
        datasets[block.dataset].append(block)
    return dict(datasets)


def average(blocks: Sequence[Block], values: Sequence[float]) -> float:
    """Average one value per block as DomainBed does: over environments, then over datasets."""
    datasets: dict[str, list[float]] = defaultdict(list)
    for block, value in zip(blocks, values, strict=True):
        datasets[block.dataset].append(value)
    return fmean(fmean(dataset) for dataset in datasets.values())


def mean_difference(blocks: Sequence[Block]) -> float:
    """Return the mean of B minus A in percentage points, averaged as DomainBed does."""
    return average(blocks, [block.difference for block in blocks])
