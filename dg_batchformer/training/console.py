"""Console output of ``train``: the lines of a run, and a progress bar with ETA on a terminal."""

import sys

from tqdm.auto import tqdm

from dg_batchformer.callbacks.base import RunInfo
from dg_batchformer.runtime.bars import shows_bars
from dg_batchformer.training.run_log import Cache, Watcher


class Console(Watcher):
    """Prints the lines of a run to standard output, and a progress bar to standard error."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None

    def begin(self, run: RunInfo) -> None:
        self.close()
        self.bar = self._bar(run.steps, "step", run.start)

    def step(self, step: int) -> None:
        assert self.bar is not None
        self.bar.update(1)

    def line(self, text: str) -> None:
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()

    def note(self, sentence: str) -> None:
        self.line(f"note: {sentence}")

    def caching(self, cache: Cache, done: int, total: int) -> None:
        if not shows_bars():
            super().caching(cache, done, total)
            return
        if self.bar is None or self.building != (cache, done > 0):
            self.close()
            self.building, self.bar = (cache, done > 0), self._bar(total, cache.entry, done)
            self.bar.set_description(cache.name if done else f"waiting for another process: {cache.name}")
        self.bar.update(done - self.bar.n)
        if done == total:
            self.close()

    def close(self) -> None:
        """Close the progress bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _bar(self, total: int, unit: str, done: int) -> tqdm:
        return tqdm(total=total, initial=done, unit=unit, disable=not shows_bars(), leave=False)
