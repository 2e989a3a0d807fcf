"""What of a sweep is done, what is due, and what that will cost."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import fmean

from dg_batchformer.declaration import SweepRun
from dg_batchformer.errors import MALFORMED
from dg_batchformer.record import Record
from dg_batchformer.store import RunFolder, State, SweepFolder
from dg_batchformer.times import duration


@dataclass(frozen=True)
class Plan:
    """The states of a sweep's runs, and the runs to start.

    Args:
        states: of every distinct run, by id.
        due: to be started, in order, each once.
        seconds: what they will take one after another, see ``price``.
        undeclared: how many runs lie in the sweep's folder that the sweep does not declare.

    """

    states: Mapping[str, State]
    due: Sequence[SweepRun]
    seconds: float | None
    undeclared: int

    def text(self, workers: int) -> str:
        """Return the plan in a sentence or two."""
        said = f"{len(self.states)} runs: {counted(self.states)}. To start: {len(self.due)}"
        if not self.due:
            return f"{said}."
        return f"{said}, {price_text(self.seconds, min(workers, len(self.due)))}."


def plan(folder: SweepFolder, runs: Sequence[SweepRun], *, retry_failed: bool = False) -> Plan:
    """Look at every run's folder and decide what is to be started.

    Failed runs are started again only if asked; runs that somebody trains are left to them.
    """
    states = run_states(folder, runs)
    startable = {State.DUE, State.INTERRUPTED, *([State.FAILED] if retry_failed else [])}
    distinct = {run.spec.id: run for run in runs}
    due = [run for run_id, run in distinct.items() if states[run_id] in startable]
    there = {path.name for path in folder.runs.glob("*") if folder.run(path.name).spec_file.exists()}
    return Plan(states, due, price(folder, runs, states, due), len(there - set(states)))


def run_states(folder: SweepFolder, runs: Sequence[SweepRun]) -> dict[str, State]:
    """Return the state of every distinct run, by id."""
    return {run_id: folder.run(run_id).state() for run_id in dict.fromkeys(run.spec.id for run in runs)}


def counted(states: Mapping[str, State]) -> str:
    """Return how many runs are in which state, as ``5 due, 1 failed, 2 done``."""
    count = Counter(states.values())
    return ", ".join(f"{count[state]} {state}" for state in State if count[state])


def price(
    folder: SweepFolder, runs: Sequence[SweepRun], states: Mapping[str, State], left: Sequence[SweepRun]
) -> float | None:
    """Return the seconds that some runs will still take, one after another; None if nothing like one is done.

    A run takes as long as those of its row and dataset that are done, less the share of its updates done.
    """
    took: dict[tuple[str, str], list[float]] = {}
    for run in {run.spec.id: run for run in runs if states[run.spec.id] is State.DONE}.values():
        seconds = folder.run(run.spec.id).outcome().get("seconds")
        if isinstance(seconds, int | float):
            took.setdefault((run.label, run.spec.dataset), []).append(seconds)
    if not all((run.label, run.spec.dataset) in took for run in left):
        return None
    shares = [1 - steps_done(folder.run(run.spec.id), run.spec.steps) / run.spec.steps for run in left]
    return sum(share * fmean(took[run.label, run.spec.dataset]) for share, run in zip(shares, left, strict=True))


def price_text(seconds: float | None, workers: int) -> str:
    """Return a price in words, for so many workers at once."""
    if seconds is None:
        return "price unknown until a run of every row is done"
    return f"about {duration(seconds / workers)} on {workers} worker{'s' * (workers != 1)}"


def steps_done(folder: RunFolder, steps: int) -> int:
    """Return how many of a run's updates its last readable record stands behind."""
    try:
        lines = folder.records_file.read_text(errors="replace").splitlines()
    except OSError:
        return 0
    for line in reversed(lines):
        with suppress(*MALFORMED):
            return min(max(Record.from_line(line).step + 1, 0), steps)
    return 0
