"""The training loop: updates, evaluations, records, and the algorithm's ``observe``."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
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
from dg_batchformer.wrappers.averaging import WeightAveraging


class Ending(Enum):
    """Reason for the end of the loop."""

    COMPLETE = "complete"
    DIVERGED = "diverged"
    INTERRUPTED = "interrupted"


class Means:
    """Running means of metrics and step time since the last evaluation, without a device synchronization per step."""

    def __init__(self) -> None:
        self.sums: dict[str, float | Tensor] = {}
        self.counts: dict[str, int] = {}
        self.updates = 0
        self.seconds = 0.0

    def add(self, metrics: Metrics) -> None:
        """Add the metrics of an update; keys may differ between updates."""
        self.updates += 1
        for name, value in metrics.items():
            value = value.detach() if isinstance(value, Tensor) else value
            self.sums[name] = self.sums.get(name, 0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def values(self) -> dict[str, float]:
        """Return the mean of every metric."""
        return {name: float(total) / self.counts[name] for name, total in self.sums.items()}

    def clear(self) -> None:
        """Reset all means."""
        vars(self).update(vars(Means()))

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain types and tensors."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state."""
        self.sums, self.counts, self.updates, self.seconds = (state[name] for name in vars(self))


def train(
    algorithm: Algorithm,
    minibatches: Iterator[Minibatches],
    evaluator: Evaluator,
    spec: RunSpec,
    *,
    start: int,
    means: Means,
    averages: Callable[[int], Sequence[WeightAveraging]],
    record: Callable[[int, dict[str, float], Evaluation], None],
    after_step: Callable[[int], Ending | None],
) -> Ending:
    """Train from step ``start`` to the end.

    Args:
        algorithm: to train.
        minibatches: of all steps from ``start`` on.
        evaluator: evaluates at checkpoints.
        spec: of the run.
        start: first step.
        means: of the updates since the last evaluation; reset at each evaluation.
        averages: returns the averages that follow a step.
        record: called with (step, metrics, evaluation).
        after_step: called after every step; returns a reason to stop, or None.

    """
    for step in range(start, spec.steps):
        began = time.perf_counter()
        seed_everything(seed_hash(spec.seed, "update", step))
        algorithm.begin_update(step, spec.steps)
        following = averages(step)
        with ExitStack() as update:
            for average in following:
                update.enter_context(average.following())
            means.add(algorithm.update(next(minibatches)))
        if spec.is_checkpoint(step):
            metrics = means.values()  # synchronizes with the device
            means.seconds += time.perf_counter() - began
            evaluation = evaluator(algorithm, step)
            record(step, {**metrics, "step_time": means.seconds / means.updates}, evaluation)
            means.clear()
            validation = evaluation.validation(spec.train_envs)
            if not all(isfinite(value) for value in (*metrics.values(), validation.loss)):
                return Ending.DIVERGED
            validate = partial(evaluator.validate, step=step)
            algorithm.observe(step, validation, validate)
            for average in following:
                average.observe_average(validation, validate)
            if algorithm.finished:
                return Ending.COMPLETE
        else:
            means.seconds += time.perf_counter() - began
        if (ending := after_step(step)) is not None:
            return ending
    return Ending.COMPLETE


def seed_everything(seed: int) -> None:
    """Seed all global random generators, so that an update does not depend on earlier ones."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
