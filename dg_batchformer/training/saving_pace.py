"""SavingPace: when the next checkpoint of a training is due."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dg_batchformer.spec.options import RunOptions

_BYTES_PER_SECOND = 4e8  # expected of the first checkpoint
_MARGIN = 1.25  # how much longer than the last checkpoint the next one may take


class SavingPace:
    """Keeps the time between checkpoints, and the share of all time since training began that goes into them.

    The first checkpoint is expected to take as long as its size suggests, and the next a quarter longer than the last.

    Args:
        options: of the run.
        size: gives the size of a checkpoint in bytes; called once, when the first may be due, as optimizers have no
            state before the first step.

    """

    def __init__(self, options: RunOptions, size: Callable[[], int]) -> None:
        self.options, self.size = options, size
        self.began = self.last = time.monotonic()
        self.total = 0.0  # seconds of all checkpoints
        self.expected: float | None = None  # seconds of the next one

    def due(self) -> bool:
        """Return whether to save now."""
        now = time.monotonic()
        if now - self.last < self.options.save_seconds:
            return False
        if self.expected is None:
            self.expected = self.size() / _BYTES_PER_SECOND
        return now - self.began >= self.options.save_interval(self.total + self.expected)

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Measure a checkpoint that is saved in the context."""
        began = time.monotonic()
        yield
        self.last = time.monotonic()
        self.total += self.last - began
        self.expected = _MARGIN * (self.last - began)
