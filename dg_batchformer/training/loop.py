"""The training loop: the one place that knows the order of update, evaluation, observation and record."""

import random
import time
from collections.abc import Callable, Iterator
from enum import Enum
from functools import partial
from math import isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dg_batchformer.algorithms.base import Algorithm, Metrics, Minibatches
from dg_batchformer.seeds import seed_hash
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.training.evaluate import Evaluation, Evaluator


class Ending(Enum):
    """Why the loop ended."""

    COMPLETE = "complete"
    DIVERGED = "diverged"
    INTERRUPTED = "interrupted"


class Means:
    """The mean of every metric, and seconds per update, since the last evaluation; without a sync per step."""

    def __init__(self) -> None:
        self.sums: dict[str, float | Tensor] = {}
        self.counts: dict[str, int] = {}
        self.updates = 0
        self.seconds = 0.0

    def add(self, metrics: Metrics) -> None:
        """Take the metrics of one update; keys may differ between updates."""
        self.updates += 1
        for name, value in metrics.items():
            value = value.detach() if isinstance(value, Tensor) else value
            self.sums[name] = self.sums.get(name, 0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def values(self) -> dict[str, float]:
        """Return the mean of every metric."""
        return {name: float(total) / self.counts[name] for name, total in self.sums.items()}

    def clear(self) -> None:
        """Begin anew."""
        vars(self).update(vars(Means()))

    def state_dict(self) -> dict[str, Any]:
        """Return everything as plain types and tensors."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state."""
        self.sums, self.counts, self.updates, self.seconds = (state[name] for name in vars(self))


def train(
    algorithm: Algorithm,
    minibatches: Iterator[Minibatches],
    evaluator: Evaluator,
    spec: RunSpec,
    *,
    start: int,
    means: Means,
    record: Callable[[int, dict[str, float], Evaluation], None],
    after_step: Callable[[int], bool],
) -> Ending:
    """Train from step ``start`` to the end.

    Args:
        minibatches: those of the steps from ``start`` on.
        means: of the updates since the last evaluation; continued, then emptied at each.
        record: takes every evaluation.
        after_step: is called with every step done; returns whether to stop now.

    """
    for step in range(start, spec.steps):
        began = time.perf_counter()
        seed_everything(seed_hash(spec.seed, "update", step))
        means.add(algorithm.update(next(minibatches)))
        if spec.is_checkpoint(step):
            metrics = means.values()  # waits for the device
            means.seconds += time.perf_counter() - began
            evaluation = evaluator(algorithm, step)
            record(step, {**metrics, "step_time": means.seconds / means.updates}, evaluation)
            means.clear()
            validation = evaluation.validation(spec.train_envs)
            if not all(isfinite(value) for value in (*metrics.values(), validation.loss)):
                return Ending.DIVERGED
            algorithm.observe(step, validation, partial(evaluator.validate, step=step))
            if algorithm.finished:
                return Ending.COMPLETE
        else:
            means.seconds += time.perf_counter() - began
        if after_step(step):
            return Ending.INTERRUPTED
    return Ending.COMPLETE


def seed_everything(seed: int) -> None:
    """Seed every global generator: an update draws the same whatever ran before it."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
