"""Plan a sweep: states of runs, which to start, and the expected time."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import fmean

from dg_batchformer.errors import MALFORMED
from dg_batchformer.runtime.parallel import in_every_core
from dg_batchformer.spec.manifest import SweepRun
from dg_batchformer.storage.digests import damaged
from dg_batchformer.storage.folders import RunFolder, State, SweepFolder
from dg_batchformer.storage.records import read_line
from dg_batchformer.storage.safe_read import TABLE, read_bytes
from dg_batchformer.text.counts import duration, how_many


@dataclass(frozen=True)
class States:
    """States of a sweep's runs.

    Args:
        of: state of every distinct run, by id.
        seconds: training time of finished runs, by id, if known.
        undeclared: number of finished runs in the sweep's folder that the sweep does not declare.
        damaged: names of damaged files by run id, if runs were verified.

    """

    of: Mapping[str, State]
    seconds: Mapping[str, float]
    undeclared: int
    damaged: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def having(self, *states: State) -> set[str]:
        """Return the ids of the runs in any of these states."""
        return {run_id for run_id, state in self.of.items() if state in states}


def run_states(folder: SweepFolder, runs: Sequence[SweepRun], *, verify: bool = False) -> States:
    """Return the states of runs; only folders of runs not logged as finished are read.

    Args:
        folder: of the sweep.
        runs: of the sweep.
        verify: also read all files of finished runs, to find damaged ones.

    """
    declared = dict.fromkeys(run.spec.id for run in runs)
    final, there = folder.final_states(), folder.run_names()
    states: dict[str, State] = {}
    seconds: dict[str, float] = {}
    for run_id in declared:
        if run_id in final and run_id not in there:
            states[run_id], took = State.GONE, None
        elif run_id in final:
            states[run_id], took = final[run_id]
        else:
            states[run_id], took = _look(folder, run_id)
        if took is not None:
            seconds[run_id] = took
    found = _verify(folder, states) if verify else {}
    states.update(dict.fromkeys(found, State.DAMAGED))
    return States(states, seconds, len((final.keys() & there) - declared.keys()), found)


def _verify(folder: SweepFolder, states: Mapping[str, State]) -> dict[str, list[str]]:
    """Return the damaged files of finished runs, by id."""
    trained = [run_id for run_id, state in states.items() if state.is_final]
    found = in_every_core(lambda run_id: damaged(folder.run(run_id)), trained, at_once=4, few=16)
    return {run_id: names for run_id, names in zip(trained, found, strict=True) if names}


def _look(folder: SweepFolder, run_id: str) -> tuple[State, float | None]:
    """Read the state and duration of a run from its folder; log the state if it is final."""
    run = folder.run(run_id)
    state = run.state() if run.path.exists() else State.DUE
    if not state.is_final:
        return state, None
    took = run.outcome().get("seconds")
    took = float(took) if isinstance(took, int | float) else None
    folder.log_final(run_id, state, took)
    return state, took


@dataclass(frozen=True)
class Plan:
    """States of a sweep's runs, and the runs to start.

    Args:
        states: of all runs.
        due: distinct runs to start, in order.
        seconds: expected time of each of these, see ``prices``.

    """

    states: States
    due: Sequence[SweepRun]
    seconds: Sequence[float | None]

    def text(self, workers: int) -> str:
        """Describe the plan in a sentence or two."""
        said = f"{len(self.states.of)} runs: {counted(self.states.of)}. To start: {len(self.due)}"
        if not self.due:
            return f"{said}."
        return f"{said}, {price_text(self.seconds, min(workers, len(self.due)))}."


def plan(
    folder: SweepFolder, runs: Sequence[SweepRun], *, retry: Collection[State] = (), queued: Collection[str] = ()
) -> Plan:
    """Decide which runs to start; running ones are skipped.

    Args:
        folder: of the sweep.
        runs: of the sweep.
        retry: also start FAILED or DAMAGED runs; for the latter, all files of finished runs are read.
        queued: ids of runs already in SLURM's queue.

    """
    states = run_states(folder, runs, verify=State.DAMAGED in retry)
    startable = states.having(State.DUE, State.GONE, State.INTERRUPTED, *retry)
    distinct = {run.spec.id: run for run in runs}
    due = [run for run_id, run in distinct.items() if run_id in startable and run_id not in queued]
    return Plan(states, due, prices(folder, runs, states, due))


def counted(states: Mapping[str, State]) -> str:
    """Format the number of runs by state: ``5 due, 1 failed, 2 done``."""
    count = Counter(states.values())
    return ", ".join(f"{count[state]} {state}" for state in State if count[state])


def prices(
    folder: SweepFolder, runs: Sequence[SweepRun], states: States, left: Sequence[SweepRun]
) -> list[float | None]:
    """Estimate the remaining seconds of each run; None if no comparable run is done.

    The estimate is the mean time of finished runs of the same row and dataset, scaled by the remaining updates.
    """
    took: dict[tuple[str, str], list[float]] = {}
    for run in {run.spec.id: run for run in runs if states.of[run.spec.id] is State.DONE}.values():
        if run.spec.id in states.seconds:
            took.setdefault((run.label, run.spec.dataset), []).append(states.seconds[run.spec.id])
    means = {row: fmean(known) for row, known in took.items()}

    def price(run: SweepRun) -> float | None:
        mean = means.get((run.label, run.spec.dataset))
        if mean is None or states.of[run.spec.id] in (State.DUE, State.GONE, State.DAMAGED):
            return mean
        return mean * (1 - steps_done(folder.run(run.spec.id), run.spec.steps) / run.spec.steps)

    return [price(run) for run in left]


def price_text(seconds: Sequence[float | None], workers: int) -> str:
    """Describe the expected time of runs with a number of workers."""
    known = [took for took in seconds if took is not None]
    if len(known) < len(seconds):
        return "duration unknown until one run of every row is done"
    return f"about {duration(sum(known) / workers)} on {how_many(workers, 'worker')}"


def steps_done(folder: RunFolder, steps: int) -> int:
    """Return the number of updates up to the last readable record of a run."""
    try:
        lines = read_bytes(folder.records_file, TABLE).splitlines()
    except OSError:
        return 0
    for line in reversed(lines):
        with suppress(*MALFORMED):
            return min(max(read_line(line)["step"] + 1, 0), steps)
    return 0
