"""Console output of ``train``: the lines of a run, and a progress bar with ETA on a terminal."""

import sys
from typing import Any

from tqdm import tqdm

from dg_batchformer.spec.run import RunSpec


class Console:
    """Prints the lines of a run to standard output, and a progress bar to standard error."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None

    def begin(self, spec: RunSpec, start: int) -> None:
        self.end()
        self.bar = self._bar(spec.steps, "step", start)

    def step(self, step: int) -> None:
        assert self.bar is not None
        self.bar.update(1)

    def record(self, values: dict[str, Any]) -> None:
        pass

    def line(self, text: str) -> None:
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()

    def note(self, sentence: str) -> None:
        self.line(f"note: {sentence}")

    def caching(self, done: int, images: int) -> None:
        if done == 1:
            self.bar = self._bar(images, "image", 0)
        assert self.bar is not None
        self.bar.update(1)
        if done == images:
            self.bar.close()

    def end(self) -> None:
        """Close the progress bar."""
        if self.bar is not None:
            self.bar.close()

    def _bar(self, total: int, unit: str, done: int) -> tqdm:
        return tqdm(total=total, initial=done, unit=unit, disable=not sys.stderr.isatty(), leave=False)
