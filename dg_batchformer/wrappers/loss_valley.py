"""SWAD's loss valley: the segments of training that the final model averages, and their weights."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Sequence
from math import inf, isfinite
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from dg_batchformer.errors import InputError

MODES = ("exact", "clean")


class Segment:
    """The mean of the iterates between two evaluations, with the validation loss at the end.

    Args:
        tensors: the averaged weights.
        loss: of the current model at the evaluation that ends the segment; NaN counts as infinite.
        start, end: first and last update.
        iterates: number of iterates in the mean.

    """

    def __init__(self, tensors: Sequence[Tensor], loss: float, start: int, end: int, iterates: int) -> None:
        self.tensors = list(tensors)
        self.loss = loss if isfinite(loss) else inf
        self.start = start
        self.end = end
        self.iterates = iterates

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain types."""
        return dict(vars(self))

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Segment":
        """Rebuild a segment from its state."""
        return cls(**state)


class Average:
    """A running mean of lists of tensors: ``mean += (x - mean) * weight / total``.

    ``tensors`` is empty, ``weight`` 0 and ``start`` -1 until something is absorbed.
    """

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.weight = 0.0
        self.start = -1
        self.end = -1

    @torch.no_grad()
    def absorb(self, tensors: Sequence[Tensor], weight: float = 1.0) -> None:
        """Add a list of tensors to the mean; raise InputError for a list of another length."""
        self.weight += weight
        if not self.tensors:
            self.tensors = [tensor.clone() for tensor in tensors]
            return
        check_lengths(self.tensors, tensors)
        if weight == self.weight:
            torch._foreach_copy_(self.tensors, list(tensors))
        else:
            torch._foreach_lerp_(self.tensors, list(tensors), weight / self.weight)

    def absorb_segment(self, segment: Segment, weight: float = 1.0) -> None:
        """Add a segment to the mean, and its updates to the range."""
        self.start = segment.start if self.weight == 0 else min(self.start, segment.start)
        self.end = segment.end if self.weight == 0 else max(self.end, segment.end)
        self.absorb(segment.tensors, weight)

    def hold(self, segment: Segment) -> None:
        """Hold a segment with weight 0: it is the mean until another one is absorbed."""
        self.absorb_segment(segment)
        self.weight = 0.0

    def copy(self) -> "Average":
        """Return an independent copy."""
        copied = Average()
        copied.load_state_dict({**self.state_dict(), "tensors": [tensor.clone() for tensor in self.tensors]})
        return copied

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain types."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state."""
        self.tensors, self.weight, self.start, self.end = (
            state[name] for name in ("tensors", "weight", "start", "end")
        )


def check_lengths(averages: Sequence[Tensor], weights: Sequence[Tensor]) -> None:
    """Raise InputError unless there is an average of every weight; earlier versions also averaged frozen ones."""
    if len(averages) != len(weights):
        raise InputError(
            f"the run has averages of {len(averages)} tensors, but {len(weights)} of them train: its checkpoint is of "
            "an earlier version, which also averaged frozen weights; delete the folder of the run to train it again"
        )


class LossValley(ABC):
    """Track the validation loss, and average the segments inside its valley.

    The valley begins when the first of the last ``n_converge`` losses is the lowest; the threshold is then their mean
    times ``1 + tolerance_ratio``. It ends after ``n_tolerance`` consecutive losses above the threshold.
    """

    def __init__(self, n_converge: int, n_tolerance: int, tolerance_ratio: float) -> None:
        self.n_converge = n_converge
        self.n_tolerance = n_tolerance
        self.tolerance_ratio = tolerance_ratio
        self.window: deque[Segment] = deque(maxlen=n_converge)
        self.recent: deque[Segment] = deque(maxlen=n_tolerance)
        self.average = Average()
        self.threshold: float | None = None
        self.dead = False

    @staticmethod
    def of(mode: str, n_converge: int, n_tolerance: int, tolerance_ratio: float) -> "LossValley":
        """Build the valley of a mode: ``exact`` or ``clean``."""
        return {"exact": ExactValley, "clean": CleanValley}[mode](n_converge, n_tolerance, tolerance_ratio)

    def add(self, segment: Segment) -> None:
        """Add the segment of an evaluation; has no effect after the valley has ended."""
        if self.dead:
            return
        self.window.append(segment)
        self.recent.append(segment)
        if self.threshold is not None:
            self._follow(segment)
        elif self._converges():
            self.threshold = fmean(kept.loss for kept in self.window) * (1 + self.tolerance_ratio)
            self._begin()

    def final(self) -> Average:
        """Return the average over the valley, or the last segment if the loss never converged."""
        if self.threshold is None:
            average = Average()
            average.absorb_segment(self.window[-1])
            return average
        return self._end()

    def _converges(self) -> bool:
        losses = [kept.loss for kept in self.window]
        return len(losses) == self.n_converge and isfinite(sum(losses)) and losses[0] == min(losses)

    def _above(self, segments: Iterable[Segment]) -> bool:
        assert self.threshold is not None
        return min(segment.loss for segment in segments) > self.threshold

    @abstractmethod
    def _begin(self) -> None:
        """Average the segments that belong to the valley when it is detected."""

    @abstractmethod
    def _follow(self, segment: Segment) -> None:
        """Process a segment after the valley was detected."""

    @abstractmethod
    def _end(self) -> Average:
        """Return the average at the end of training."""

    def state_dict(self) -> dict[str, Any]:
        """Return the training state as plain types."""
        return {
            "window": [segment.state_dict() for segment in self.window],
            "recent": [segment.state_dict() for segment in self.recent],
            "average": self.average.state_dict(),
            "threshold": self.threshold,
            "dead": self.dead,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state; a segment in both queues becomes one object again."""
        segments = {entry["end"]: Segment.from_state(entry) for entry in (*state["window"], *state["recent"])}
        for queue, name in ((self.window, "window"), (self.recent, "recent")):
            queue.clear()
            queue.extend(segments[entry["end"]] for entry in state[name])
        self.average.load_state_dict(state["average"])
        self.threshold = state["threshold"]
        self.dead = state["dead"]


class ExactValley(LossValley):
    """The bookkeeping of SWAD's release, on which published numbers are based.

    Every segment has weight 1. The segment of convergence is held with weight 0, and counts when it reaches the front
    of ``recent``; a look-back absorbs segments before it; the end drops the front without a check.
    """

    def _begin(self) -> None:
        self.converged_at = self.window[0].end
        self.average.hold(self.window[0])
        surplus = self.n_tolerance - self.n_converge
        if surplus < 0:
            looked_back = list(self.window)[1 : 1 - surplus]
        elif surplus > 0:
            candidates = list(self.recent)[: surplus + 1]
            above = [place for place, segment in enumerate(candidates) if self._above([segment])]
            looked_back = candidates[(above[-1] + 1 if above else 0) + 1 :]
        else:
            looked_back = []
        for segment in looked_back:
            self.average.absorb_segment(segment)

    def _follow(self, segment: Segment) -> None:
        front = self.recent[0]
        if front.end < self.converged_at:
            return
        if self._above(self.recent):
            self.dead = True
        else:
            self.average.absorb_segment(front)

    def _end(self) -> Average:
        if self.dead:
            return self.average
        average, remaining = self.average.copy(), list(self.recent)[1:]
        while remaining and not self._above(remaining):
            average.absorb_segment(remaining.pop(0))
        return average

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "converged_at": getattr(self, "converged_at", None)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.converged_at = state["converged_at"]


class CleanValley(LossValley):
    """Average each iterate once, from the segment of convergence to the last one before the valley's end."""

    def _begin(self) -> None:
        self.pending: list[Segment] = []
        for segment in self.window:
            if not self.dead:
                self._follow(segment)

    def _follow(self, segment: Segment) -> None:
        self.pending.append(segment)
        if not self._above([segment]):
            self._absorb_pending(self.average)
            self.pending = []
        elif len(self.pending) == self.n_tolerance:
            self.dead = True

    def _end(self) -> Average:
        if self.dead:
            return self.average
        average = self.average.copy()
        self._absorb_pending(average)
        return average

    def _absorb_pending(self, average: Average) -> None:
        for segment in self.pending:
            average.absorb_segment(segment, segment.iterates)

    def state_dict(self) -> dict[str, Any]:
        pending = [segment.state_dict() for segment in getattr(self, "pending", [])]
        return {**super().state_dict(), "pending": pending}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.pending = [Segment.from_state(entry) for entry in state["pending"]]


def loss_valley_weights(
    losses: Sequence[float],
    n_converge: int = 3,
    n_tolerance: int = 6,
    tolerance_ratio: float = 0.3,
    mode: str = "exact",
    iterates: Sequence[int] | None = None,
) -> list[float]:
    """Return the weight of every segment in SWAD's final model; the weights sum to 1.

    Runs the training code on segments whose tensors are unit vectors.

    Args:
        losses: validation loss at the end of each segment; at least one.
        n_converge, n_tolerance, tolerance_ratio: see ``LossValley``.
        mode: ``exact`` or ``clean``.
        iterates: number of updates in each segment, the weights in mode ``clean``; default: 1 each.

    """
    counts = [1] * len(losses) if iterates is None else list(iterates)
    if not losses or len(counts) != len(losses):
        raise ValueError(f"{len(losses)} losses with {len(counts)} counts of iterates: give one count per loss")
    valley = LossValley.of(mode, n_converge, n_tolerance, tolerance_ratio)
    units = torch.eye(len(losses), dtype=torch.float64)
    for index, (loss, count) in enumerate(zip(losses, counts, strict=True)):
        valley.add(Segment([units[index]], loss, index, index, count))
    return valley.final().tensors[0].tolist()
