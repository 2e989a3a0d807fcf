"""The console of ``train``: a line per evaluation, and a progress bar with ETA where there is a terminal."""

import sys
import time
from statistics import fmean
from typing import Any

from tqdm import tqdm

from dg_batchformer.spec import RunSpec
from dg_batchformer.times import duration


class Console:
    """Prints what a run does to standard output; the bar goes to standard error."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None

    def begin(self, spec: RunSpec, start: int) -> None:
        self.spec, self.start, self.began = spec, start, time.monotonic()
        names = spec.environment_names
        resumed = f", resumed at step {start}" if start else ""
        print(
            f"{spec.algorithm} on {spec.dataset} ({spec.protocol}): trains on {names(spec.train_envs)}; "
            f"{spec.holdout_fraction:.0%} of them validate; tests on {names(spec.test_envs)}{resumed}",
            flush=True,
        )
        self.bar = tqdm(total=spec.steps, initial=start, unit="step", disable=not sys.stderr.isatty(), leave=False)

    def step(self, step: int) -> None:
        assert self.bar is not None
        self.bar.update(1)

    def record(self, values: dict[str, Any]) -> None:
        assert self.bar is not None
        self.bar.write(self._line(values), file=sys.stdout)
        sys.stdout.flush()

    def note(self, sentence: str) -> None:
        tqdm.write(f"note: {sentence}", file=sys.stdout)

    def caching(self, done: int, images: int) -> None:
        if done == 1:
            self.bar = tqdm(
                total=images, unit="image", desc="pixel cache", disable=not sys.stderr.isatty(), leave=False
            )
        assert self.bar is not None
        self.bar.update(1)
        if done == images:
            self.bar.close()
            print(f"note: {images} images decoded into the pixel cache, once for all runs", flush=True)

    def end(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()

    def _line(self, values: dict[str, Any]) -> str:
        spec = self.spec
        validation = fmean(values[f"env{env}_out_acc"] for env in spec.train_envs)
        tests = [f"{spec.facts.names[env]} {values[f'env{env}_in_acc']:6.1%}" for env in spec.test_envs]
        shown = f"validation {validation:6.1%}  {'  '.join(tests)}"
        if values.get("final"):
            span = (
                f"mean of updates {values['averaged_from']} to {values['averaged_to']}"
                if "averaged_from" in values
                else ""
            )
            return f"final model         {shown}  {span}".rstrip()
        losses = [f"loss {value:7.4f}  " for name, value in values.items() if name in ("loss", "gen_loss")]
        done = values["step"] + 1
        left = (time.monotonic() - self.began) / (done - self.start) * (spec.steps - done)
        eta = f"  ETA {duration(left)}" if done < spec.steps else ""
        return f"step {values['step']:>6}/{spec.steps - 1}  {''.join(losses[:1])}{shown}{eta}"
