"""Console output of ``sweep``: a progress bar over all updates with ETA, and a line for every finished run."""

import sys
import time
from collections.abc import Collection, Sequence

from tqdm.auto import tqdm

from dg_batchformer.runtime.bars import shows_bars
from dg_batchformer.spec.manifest import SweepRun
from dg_batchformer.text.counts import duration


class SweepConsole:
    """Prints the events of a launch; the progress bar goes to standard error if that is a terminal.

    Args:
        runs: of the launch.
        said: notes that were printed already, to skip.

    """

    def __init__(self, runs: Sequence[SweepRun], said: Collection[str] = ()) -> None:
        self.said = said
        self.runs = len(runs)
        self.ended_runs = 0
        self.done = {run.spec.id: 0 for run in runs}
        self.total = sum(run.spec.steps for run in runs)  # updates, without the missing ones of runs that ended early
        self.skipped = 0  # updates done before this launch
        self.began: float | None = None  # time of the first update
        self.bar = tqdm(total=self.total, unit="step", disable=not shows_bars(), leave=False)

    def begin(self, run: SweepRun, start: int) -> None:
        self.began = time.monotonic() if self.began is None else self.began
        self.skipped += max(0, start - self.done[run.spec.id])
        self.progress(run, start)

    def progress(self, run: SweepRun, done: int) -> None:
        self.bar.update(done - self.done[run.spec.id])
        self.done[run.spec.id] = done

    def ended(self, run: SweepRun, how: str, sentence: str) -> None:
        self.ended_runs += 1
        if how == "done":
            self.progress(run, run.spec.steps)
        elif how != "interrupted":
            self.total -= run.spec.steps - self.done[run.spec.id]
            self.bar.total = self.total
        said = [*([how] if how != "done" or not sentence else []), *([sentence] if sentence else [])]
        self._write(f"[{self.ended_runs}/{self.runs}] {run.name}: {': '.join(said)}{self._eta()}")

    def note(self, run: SweepRun, sentence: str) -> None:
        if sentence not in self.said:
            self._write(f"note: {run.name}: {sentence}")

    def close(self) -> None:
        """Close the progress bar."""
        self.bar.close()

    def _write(self, line: str) -> None:
        self.bar.write(line, file=sys.stdout)
        sys.stdout.flush()

    def _eta(self) -> str:
        """Return the remaining time, extrapolated from the updates of this launch."""
        done = sum(self.done.values())
        if self.began is None or done >= self.total or done <= self.skipped:
            return ""
        left = (time.monotonic() - self.began) / (done - self.skipped) * (self.total - done)
        return f"  (ETA {duration(left)})"
