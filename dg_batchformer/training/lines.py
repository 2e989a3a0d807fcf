"""The output lines of a run, for the console of ``train`` and log.txt."""

import time
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from dg_batchformer.errors import CannotResume, as_sentence
from dg_batchformer.results.collection import CollectedRun
from dg_batchformer.results.our_sweep import read_run
from dg_batchformer.results.selection import METHODS, Score
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.storage.folders import RunFolder, State, read_object
from dg_batchformer.storage.lock import Busy
from dg_batchformer.text.counts import duration, how_many
from dg_batchformer.training.faults import DeviceFault
from dg_batchformer.training.run_log import storage_error
from dg_batchformer.training.stop import Interrupted


class Lines:
    """Formats the events of a run.

    Args:
        spec: of the run.
        name: the algorithm as the user typed it.

    """

    def __init__(self, spec: RunSpec, name: str) -> None:
        self.spec, self.name = spec, name
        self.measured: tuple[int, float] | None = None  # (updates done, time) at the start of the ETA measurement

    def begin(self, start: int, folder: RunFolder) -> list[str]:
        """Return the opening lines: what is trained, from which step, and the run folder."""
        spec, names = self.spec, self.spec.environment_names
        resumed = f", resumed at step {start}" if start else ""
        return [
            f"{self.name} on {spec.dataset} ({spec.protocol}): trains on {names(spec.train_envs)}; "
            f"{spec.holdout_fraction:.0%} held out for validation; tests on {names(spec.test_envs)}{resumed}",
            f"run folder: {folder.path}",
        ]

    def record(self, values: dict[str, Any]) -> str:
        """Return the line of an evaluation, with an ETA from the second one on."""
        spec = self.spec
        validation = fmean(values[f"env{env}_out_acc"] for env in spec.train_envs)
        tests = [f"{spec.facts.names[env]} {values[f'env{env}_in_acc']:6.1%}" for env in spec.test_envs]
        shown = f"validation {validation:6.1%}  {'  '.join(tests)}"
        if values.get("final"):
            averaged = "averaged_from" in values
            span = f"mean of updates {values['averaged_from']} to {values['averaged_to']}" if averaged else ""
            return f"final model         {shown}  {span}".rstrip()
        losses = [f"loss {value:7.4f}  " for name, value in values.items() if name in ("loss", "gen_loss")]
        eta = self._eta(values["step"] + 1)
        return f"step {values['step']:>6}/{spec.steps - 1}  {''.join(losses[:1])}{shown}{eta}"

    def _eta(self, done: int) -> str:
        now = time.monotonic()
        if self.measured is None:  # do not count one-time costs: libraries, compilers, caches
            self.measured = done, now
            return ""
        first, began = self.measured
        left = (now - began) / (done - first) * (self.spec.steps - done) if done > first else 0
        return f"  ETA {duration(left)}" if done < self.spec.steps else ""


def outcome(spec: RunSpec, folder: RunFolder) -> list[str]:
    """Return the closing lines of a finished run."""
    run = read_run(spec, folder)
    if run.state is State.DAMAGED:
        way_out = f"delete {folder.path} to train the run again"
        return [f"damaged: {folder.records_file} changed since the run finished; {way_out}"]
    if run.state is State.DIVERGED:
        said = ["diverged: loss or metrics are not finite; try a smaller lr"]
    else:
        said = [line for name in ("training-domain", "oracle") for line in _selected(spec, folder, name)]
    return [*said, f"records: {folder.records_file}", *_threads(run)]


def about_frozen(names: Sequence[str]) -> str:
    """Say that all terms of some algorithms but the risk have nothing to train."""
    adds, trains, seeds = (
        ("adds", "it trains", "another seed") if len(names) == 1 else ("add", "they train", "other seeds")
    )
    return (
        f"{', '.join(names)} {adds} terms that train the featurizer only, which is frozen, so {trains} like ERM from "
        f"{seeds}; freeze less of it, as protocol laptop-finetune does"
    )


def ending(spec: RunSpec, folder: RunFolder, how: State | Exception) -> tuple[str, str]:
    """Return how a run of a sweep ended, as in ``Report.ended``, and a sentence about it.

    The sentence has the accuracies of a trained run, or its place in the race that stopped it, or the error.

    Args:
        how: its state, or the exception that ended it.

    """
    if isinstance(how, State):
        return how.value, _result(spec, folder, how)
    if isinstance(how, Interrupted):
        return "interrupted", ""
    if isinstance(how, Busy):
        return "busy", str(how)
    if isinstance(how, CannotResume):
        return "not resumed", str(how)
    stopped = isinstance(how, DeviceFault) or storage_error(how) is not None
    return "stopped" if stopped else State.FAILED.value, as_sentence(how)


def _result(spec: RunSpec, folder: RunFolder, state: State) -> str:
    if state is State.OUTRACED:
        place = read_object(folder.race_file)
        return place_text(place) if place else ""
    return _accuracies(spec, folder) if state is State.DONE else ""


def place_text(place: Mapping[str, Any]) -> str:
    """Return the place of a run at a rung, from the fields of a ``Standing``."""
    accuracy = f"validation {100 * place['validation']:.1f}"
    return f"step {place['step']}, rank {place['rank']} of {place['of']}, {accuracy}"


def _accuracies(spec: RunSpec, folder: RunFolder) -> str:
    """Return validation and test accuracy in percent under training-domain selection, averaged over test domains."""
    found = list(_scores(spec, folder, "training-domain").values())
    if not found:
        return ""
    return f"validation {100 * found[0].validation:.1f}, test {100 * fmean(score.test for score in found):.1f}"


def _threads(run: CollectedRun) -> list[str]:
    """Return a note on the number of CPU threads, which results depend on."""
    threads = run.constant.get("threads")
    if run.constant.get("device") != "cpu" or threads is None:
        return []
    return [
        f"trained with {how_many(threads, 'CPU thread')}; a different number changes rounding, and therefore the "
        f"results: use --threads {threads} to reproduce them"
    ]


def _scores(spec: RunSpec, folder: RunFolder, method: str) -> dict[int, Score]:
    """Return the scores of one run under a selection method, by test environment."""
    run, select = read_run(spec, folder), METHODS[method].select
    found = {env: select([run], env, len(spec.facts.names)) for env in spec.test_envs}
    return {env: score for env, score in found.items() if score is not None}


def _selected(spec: RunSpec, folder: RunFolder, method: str) -> list[str]:
    found = _scores(spec, folder, method)
    said = ", ".join(f"{spec.facts.names[env]}: {score.test:.1%}" for env, score in found.items())
    steps = [score.step for score in found.values()]  # one: the validation is the same for all
    return [f"test accuracy on {said} (step {steps[0]}, selected by the {METHODS[method].title})"] if found else []
