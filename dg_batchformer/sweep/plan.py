"""Plan a sweep: states of runs, which to start, and the expected time."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import fmean

from dg_batchformer.errors import MALFORMED
from dg_batchformer.runtime.parallel import in_every_core
from dg_batchformer.spec.manifest import SweepRun
from dg_batchformer.spec.trajectories import Trajectory, trajectories
from dg_batchformer.storage.digests import damaged
from dg_batchformer.storage.folders import RunFolder, State, SweepFolder, TimedState
from dg_batchformer.storage.records import read_line
from dg_batchformer.storage.safe_read import TABLE, read_bytes
from dg_batchformer.text.counts import duration, how_many

_SHOWN = 3  # sets of rows that are trained together


@dataclass(frozen=True)
class States:
    """States of a sweep's runs.

    Args:
        of: state of every distinct run, by id.
        finals: how runs ended that are finished or out of the race, by id.
        undeclared: number of finished runs in the sweep's folder that the sweep does not declare.
        damaged: names of damaged files by run id, if runs were verified.

    """

    of: Mapping[str, State]
    finals: Mapping[str, TimedState]
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
    declared = {run.spec.id: run for run in runs}
    final, there = folder.final_states(), folder.run_names()
    states: dict[str, State] = {}
    finals: dict[str, TimedState] = {}
    for run_id, run in declared.items():
        if run_id in final and run_id not in there:
            states[run_id] = State.GONE
            continue
        known = final.get(run_id) or _look(folder, run)
        states[run_id] = known.state
        if known.state.has_ended:
            finals[run_id] = known
    found = _verify(folder, states) if verify else {}
    states.update(dict.fromkeys(found, State.DAMAGED))
    return States(states, finals, len((final.keys() & there) - declared.keys()), found)


def _verify(folder: SweepFolder, states: Mapping[str, State]) -> dict[str, list[str]]:
    """Return the damaged files of finished runs, by id."""
    trained = [run_id for run_id, state in states.items() if state.is_final]
    found = in_every_core(lambda run_id: damaged(folder.run(run_id)), trained, at_once=4, few=16)
    return {run_id: names for run_id, names in zip(trained, found, strict=True) if names}


def _look(folder: SweepFolder, run: SweepRun) -> TimedState:
    """Read the state of a run from its folder; log it if it is final."""
    files = folder.run(run.spec.id)
    state = run.state(files) if files.path.exists() else State.DUE
    if state is State.OUTRACED:
        return files.outraced_state()
    if not state.is_final:
        return TimedState(state)
    folder.log_end(run.spec.id)
    return files.final_state()


@dataclass(frozen=True)
class Plan:
    """States of a sweep's runs, and the runs to start.

    Args:
        states: of all runs.
        due: distinct runs to start, in order.
        seconds: expected device time of each of these, see ``prices``.
        seconds_alone: the same if every run were trained alone.
        trainings: the same runs, grouped by those that are trained together.

    """

    states: States
    due: Sequence[SweepRun]
    seconds: Sequence[float | None]
    seconds_alone: Sequence[float | None]
    trainings: Sequence[Trajectory]

    def text(self, workers: int) -> str:
        """Describe the plan in two or three sentences."""
        said = f"{how_many(len(self.states.of), 'run')}: {counted(self.states.of)}. To start: {len(self.due)}"
        if not self.due:
            return f"{said}."
        price = price_text(self.seconds, min(workers, len(self.trainings)))
        return f"{said}, {price}.{self._shared_text()}{self._race_text()}"

    def _race_text(self) -> str:
        """Return a sentence on a race, '' if no run to start is in one."""
        races = dict.fromkeys(run.bracket.race for run in self.due if run.bracket is not None)
        return "".join(f" A race stops some of them at {race.text}." for race in races)

    def _shared_text(self) -> str:
        """Return a sentence on runs that are trained together, '' if there are none."""
        if len(self.trainings) == len(self.due):
            return ""
        together = {", ".join(run.label for run in runs): None for runs in self.trainings if len(runs) > 1}
        shown = [*list(together)[:_SHOWN], *(["..."] if len(together) > _SHOWN else [])]
        return (
            f" They need {how_many(len(self.trainings), 'training')}, as rows that differ only in averaging weights "
            f"are trained together: {'; '.join(shown)}.{self._saved_text()}"
        )

    def _saved_text(self) -> str:
        """Return a sentence on the device time that is saved, '' if it is unknown."""
        alone, together = _total(self.seconds_alone), _total(self.seconds)
        if alone is None or together is None or alone - together < 1:
            return ""
        return f" This saves about {duration(alone - together)}."

    @property
    def seconds_of_trainings(self) -> list[float | None]:
        """Expected time of every training."""
        seconds = {run.spec.id: took for run, took in zip(self.due, self.seconds, strict=True)}
        return [_total([seconds[run.spec.id] for run in runs]) for runs in self.trainings]


def plan(
    folder: SweepFolder,
    runs: Sequence[SweepRun],
    *,
    retry: Collection[State] = (),
    queued: Collection[str] = (),
    share: bool = True,
) -> Plan:
    """Decide which runs to start; running ones are skipped.

    Args:
        folder: of the sweep.
        runs: of the sweep.
        retry: also start FAILED or DAMAGED runs; for the latter, all files of finished runs are read.
        queued: ids of runs already in SLURM's queue.
        share: whether runs of one trajectory are trained together.

    """
    states = run_states(folder, runs, verify=State.DAMAGED in retry)
    startable = states.having(State.DUE, State.GONE, State.INTERRUPTED, *retry)
    distinct = {run.spec.id: run for run in runs}
    due = [run for run_id, run in distinct.items() if run_id in startable and run_id not in queued]
    trainings = trajectories(due, share=share)
    seconds = prices(folder, runs, states, due, share=share)
    alone = prices(folder, runs, states, due, share=False) if len(trainings) < len(due) else seconds
    return Plan(states, due, seconds, alone, trainings)


def counted(states: Mapping[str, State]) -> str:
    """Format the number of runs by state: ``5 due, 1 failed, 2 done``."""
    count = Counter(states.values())
    return ", ".join(f"{count[state]} {state}" for state in State if count[state])


def prices(
    folder: SweepFolder, runs: Sequence[SweepRun], states: States, left: Sequence[SweepRun], *, share: bool = True
) -> list[float | None]:
    """Estimate the remaining device time of each run in seconds; None if no comparable run is done.

    The estimate is the mean time of finished runs of the same row and dataset, scaled by the remaining updates, and for
    runs that have yet to start in a race by the share of updates that it leaves them on average. A run that will share
    its training counts its part of it, others the time that they need alone.

    Args:
        folder: of the sweep.
        runs: of the sweep.
        states: of these runs.
        left: runs to estimate, which are to be trained together.
        share: whether runs of one trajectory share a training.

    """
    together = alone = mean_seconds(runs, states)
    shares: set[str] = set()
    if any(final.seconds_alone is not None for final in states.finals.values()):
        alone = mean_seconds(runs, states, alone=True)
        groups = trajectories(left, share=share)
        shares = {run.spec.id for group in groups if len(group) > 1 for run in group}

    def price(run: SweepRun) -> float | None:
        mean = (together if run.spec.id in shares else alone).get((run.label, run.spec.dataset))
        if mean is None:
            return None
        if states.of[run.spec.id] in (State.DUE, State.GONE, State.DAMAGED):
            return mean if run.bracket is None else mean * run.bracket.race.share_of(run.spec.steps)
        return mean * (1 - steps_done(folder.run(run.spec.id), run.spec.steps) / run.spec.steps)

    return [price(run) for run in left]


def mean_seconds(runs: Sequence[SweepRun], states: States, *, alone: bool = False) -> dict[tuple[str, str], float]:
    """Return the mean device time of the finished runs of every row and dataset that has any.

    Runs that shared a training count their part of it or, with ``alone``, the time that they would have needed alone.
    """
    took: dict[tuple[str, str], list[float]] = {}
    for run in {run.spec.id: run for run in runs if states.of[run.spec.id] is State.DONE}.values():
        final = states.finals.get(run.spec.id, TimedState(State.DONE))
        seconds = final.seconds if final.seconds_alone is None or not alone else final.seconds_alone
        if seconds is not None:
            took.setdefault((run.label, run.spec.dataset), []).append(seconds)
    return {row: fmean(known) for row, known in took.items()}


def _total(seconds: Sequence[float | None]) -> float | None:
    """Return the sum; None if a term is unknown."""
    known = [took for took in seconds if took is not None]
    return sum(known) if len(known) == len(seconds) else None


def price_text(seconds: Sequence[float | None], workers: int) -> str:
    """Describe the expected time of runs with a number of workers."""
    total = _total(seconds)
    if total is None:
        return "duration unknown until one run of every row is done"
    in_all = f" ({duration(total)} of device time)" if workers > 1 else ""
    return f"about {duration(total / workers)} on {how_many(workers, 'worker')}{in_all}"


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
