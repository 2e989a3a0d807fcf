"""What of a sweep is done, what is due, and what that will cost."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from dg_batchformer.store import State, SweepFolder
from dg_batchformer.sweep.expand import SweepRun
from dg_batchformer.times import duration


@dataclass(frozen=True)
class Plan:
    """The states of a sweep's runs, and the runs to start.

    Args:
        states: how many distinct runs are in each state.
        due: to be started, in order, each once.
        seconds: for all of them one after another, by what finished runs of their row and dataset took; None
            if some row has none.

    """

    states: Counter[State]
    due: Sequence[SweepRun]
    seconds: float | None

    def text(self, workers: int) -> str:
        """Return the plan in a sentence or two."""
        counts = ", ".join(f"{count} {state}" for state, count in self.states.items())
        price = "price unknown until a run of every row is done"
        if self.seconds is not None:
            price = f"about {duration(self.seconds / min(workers, len(self.due) or 1))} on {workers} workers"
        return f"{self.states.total()} runs: {counts}. To start: {len(self.due)}, {price}."


def plan(folder: SweepFolder, runs: Sequence[SweepRun], *, retry_failed: bool = False) -> Plan:
    """Look at every run's folder and decide what is to be started.

    Failed runs are started again only if asked; runs that somebody trains are left to them.
    """
    distinct = {run.spec.id: run for run in runs}
    states = {run_id: folder.run(run_id).state() for run_id in distinct}
    startable = {State.DUE, State.INTERRUPTED, *([State.FAILED] if retry_failed else [])}
    due = [run for run_id, run in distinct.items() if states[run_id] in startable]
    counted = Counter(states.values())
    ordered = Counter({state: counted[state] for state in State if counted[state]})
    return Plan(ordered, due, _price(folder, distinct, states, due))


def _price(
    folder: SweepFolder, runs: dict[str, SweepRun], states: dict[str, State], due: Sequence[SweepRun]
) -> float | None:
    took: dict[tuple[str, str], list[float]] = {}
    for run_id, run in runs.items():
        if states[run_id] is State.DONE:
            seconds = folder.run(run_id).outcome().get("seconds")
            if isinstance(seconds, int | float):
                took.setdefault((run.label, run.spec.dataset), []).append(seconds)
    rows = [(run.label, run.spec.dataset) for run in due]
    return sum(fmean(took[row]) for row in rows) if all(row in took for row in rows) else None
