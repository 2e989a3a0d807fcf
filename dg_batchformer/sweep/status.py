"""What has become of a sweep: states by row, progress of what runs, failures with their reason."""

from collections import Counter
from collections.abc import Mapping

from tabulate import tabulate

from dg_batchformer.declaration import Declared, SweepRun
from dg_batchformer.store import State, SweepFolder
from dg_batchformer.sweep.plan import price, price_text, steps_done

States = Mapping[str, State]  # by run id
_SETTLED = (State.DONE, State.DIVERGED, State.FAILED)


def status_text(folder: SweepFolder, declared: Declared, states: States) -> str:
    """Return the status of a sweep as text."""
    lines = [_states_table(declared, states)]
    lines += [line for run in declared.runs if (line := _line(folder, run, states[run.spec.id]))]
    return "\n".join([*lines, *_ways_on(folder, declared, states)])


def _states_table(declared: Declared, states: States) -> str:
    shown = [state for state in State if state in states.values()]
    counts: dict[str, Counter[State]] = {label: Counter() for label in declared.rows}
    for run in declared.runs:
        counts[run.label][states[run.spec.id]] += 1
    total = Counter(states.values())  # a run that two rows share counts once
    rows: list[list[object]] = [
        [label, *(count[state] or "" for state in shown), count.total()]
        for label, count in [*counts.items(), ("all", total)]
    ]
    return tabulate(rows, headers=[declared.name, *map(str, shown), "runs"])


def _line(folder: SweepFolder, run: SweepRun, state: State) -> str:
    """Return what there is to say of a run, '' where its state says all."""
    files, name = folder.run(run.spec.id), f"{run.name} ({run.spec.id})"
    if state is State.RUNNING:
        return f"running: {name}, past step {steps_done(files, run.spec.steps)} of {run.spec.steps}"
    if state is State.FAILED:
        return f"failed: {name}: {files.failure()}"
    return f"diverged: {name}: loss or metrics are not finite" if state is State.DIVERGED else ""


def _ways_on(folder: SweepFolder, declared: Declared, states: States) -> list[str]:
    """Return what is left, and the commands that come next."""
    command = "python -m dg_batchformer"
    sweep = f"{command} sweep sweeps/{declared.name}.yaml"
    there = set(states.values())
    untrained = {run.spec.id: run for run in declared.runs if states[run.spec.id] not in _SETTLED}
    lines = []
    if untrained:
        workers = max(1, sum(state is State.RUNNING for state in states.values()))
        seconds = price(folder, declared.runs, states, list(untrained.values()))
        lines.append(f"{len(untrained)} runs left, {price_text(seconds, workers)}")
    if there & {State.DUE, State.INTERRUPTED}:
        lines.append(f"continue: {sweep}")
    if State.FAILED in there:
        lines.append(f"try failed runs again: {sweep} --retry failed")
    if there & {State.DONE, State.DIVERGED}:
        lines.append(f"tables: {command} tables {folder.path}")
    return lines
