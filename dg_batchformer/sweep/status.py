"""What has become of a sweep: states by row, progress of what runs, failures with their reason."""

from collections import Counter
from collections.abc import Sequence

from tabulate import tabulate

from dg_batchformer.errors import InputError
from dg_batchformer.spec.command import command
from dg_batchformer.spec.manifest import Declared, SweepRun
from dg_batchformer.storage.folders import State, SweepFolder
from dg_batchformer.sweep.jobs import ADVICE, ended_states, queued_states, read_jobs
from dg_batchformer.sweep.plan import States, price_text, prices, steps_done

_SHOWN = 20  # lines of each kind


def status_text(folder: SweepFolder, declared: Declared, states: States) -> str:
    """Return the status of a sweep as text."""
    lines = [_states_table(declared, states)]
    for state in (State.RUNNING, State.FAILED, State.DIVERGED, State.DAMAGED, State.GONE):
        found = {run.spec.id: run for run in declared.runs if states.of[run.spec.id] is state}
        lines += [_line(folder, run, states) for run in list(found.values())[:_SHOWN]]
        lines += [f"... and {len(found) - _SHOWN} more {state}"] * (len(found) > _SHOWN)
    return "\n".join([*lines, *_slurm_lines(folder, declared, states), *_ways_on(folder, declared, states)])


def _slurm_lines(folder: SweepFolder, declared: Declared, states: States) -> list[str]:
    """Say what SLURM does with the jobs of a sweep, and of each run that a job left behind, why."""
    jobs = read_jobs(folder)
    if not jobs:
        return []
    try:
        queued = queued_states(jobs)
    except InputError as error:
        return [f"SLURM cannot be asked: {error}"]
    counts = Counter(queued.values())
    lines = [f"SLURM: {', '.join(f'{count} tasks {state.lower()}' for state, count in sorted(counts.items()))}"]
    lines = lines if counts else ["SLURM: no task is left"]
    latest = {run_id: job for job in jobs for run_id in job.runs}
    left = states.having(State.DUE, State.GONE, State.INTERRUPTED)
    stranded = {run_id: job for run_id, job in latest.items() if run_id in left and job.job_id not in queued}
    ended = ended_states(list(stranded.values()))
    names = {run.spec.id: run.name for run in declared.runs}
    said = [
        f"left behind: {names[run_id]} ({run_id}): {ADVICE.get(ended.get(job.job_id, ''), 'its job has ended')}"
        for run_id, job in stranded.items()
    ]
    return [*lines, *said[:_SHOWN], *[f"... and {len(said) - _SHOWN} more left behind"] * (len(said) > _SHOWN)]


def _states_table(declared: Declared, states: States) -> str:
    shown = [state for state in State if states.having(state)]
    counts: dict[str, Counter[State]] = {label: Counter() for label in declared.rows}
    for run in declared.runs:
        counts[run.label][states.of[run.spec.id]] += 1
    total = Counter(states.of.values())  # a run that two rows share counts once
    rows: list[list[object]] = [
        [label, *(count[state] or "" for state in shown), count.total()]
        for label, count in [*counts.items(), ("all", total)]
    ]
    return tabulate(rows, headers=[declared.name, *map(str, shown), "runs"])


def _line(folder: SweepFolder, run: SweepRun, states: States) -> str:
    """Return what there is to say of a run that runs, or whose results are missing."""
    state = states.of[run.spec.id]
    files, name = folder.run(run.spec.id), f"{run.name} ({run.spec.id})"
    if state is State.RUNNING:
        return f"running: {name}, past step {steps_done(files, run.spec.steps)} of {run.spec.steps}"
    if state is State.FAILED:
        return f"failed: {name}: {files.failure()}"
    if state is State.DAMAGED:
        return f"damaged: {name}: {', '.join(states.damaged[run.spec.id])} differs from what the run wrote"
    if state is State.GONE:
        return f"folder is gone: {name}: it was trained; the sweep trains it again"
    return f"diverged: {name}: loss or metrics are not finite"


def _ways_on(folder: SweepFolder, declared: Declared, states: States) -> list[str]:
    """Return what is left, and the commands that come next."""
    there = set(states.of.values())
    untrained = {run.spec.id: run for run in declared.runs if not states.of[run.spec.id].is_settled}
    lines = []
    if untrained:
        workers = max(1, len(states.having(State.RUNNING)))
        left: Sequence[float | None] = prices(folder, declared.runs, states, list(untrained.values()))
        lines.append(f"{len(untrained)} runs left, {price_text(left, workers)}")
    if there & {State.DUE, State.GONE, State.INTERRUPTED}:
        lines.append(f"continue: {declared.command()}")
    if State.FAILED in there:
        lines.append(f"try failed runs again: {declared.command(retry=[State.FAILED])}")
    if State.DAMAGED in there:
        lines.append(f"train damaged runs again: {declared.command(retry=[State.DAMAGED])}")
    if there & {State.DONE, State.DIVERGED}:
        lines.append(f"tables: {command('tables', folder.path)}")
    return lines
