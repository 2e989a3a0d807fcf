"""Status of a sweep: states by row, progress of running runs, reasons of failures."""

from collections import Counter
from collections.abc import Sequence
from textwrap import fill
from typing import Any

from tabulate import tabulate

from dg_batchformer.errors import InputError
from dg_batchformer.spec.manifest import SweepManifest, SweepRun, awaits_winners
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.storage.cost import Cost, cost_text
from dg_batchformer.storage.folders import RunFolder, State, SweepFolder
from dg_batchformer.sweep.jobs import ADVICE, ended_states, queued_states, read_jobs
from dg_batchformer.sweep.plan import States, counted, price_text, prices, steps_done
from dg_batchformer.text.command import command
from dg_batchformer.text.counts import of_trials

_SHOWN = 20  # lines of each kind
_WIDTH = 80  # columns of a terminal
_WRAPPED: Any = {"subsequent_indent": "  ", "break_long_words": False, "break_on_hyphens": False}


def run_text(folder: RunFolder, spec: RunSpec, state: State) -> str:
    """Return the status of a run started by ``train``, in one line."""
    updates = f"{steps_done(folder, spec.steps)} of {spec.steps} updates"
    reason = f": {folder.failure()}" if state is State.FAILED else ""
    return f"{SweepRun(spec.method, spec).name}: {state}, {updates}{reason}"


def status_text(folder: SweepFolder, manifest: SweepManifest, states: States) -> str:
    """Return the status of a sweep as text."""
    lines = [_states_table(manifest, states)]
    for state in (State.RUNNING, State.FAILED, State.DIVERGED, State.DAMAGED, State.GONE):
        found = {run.spec.id: run for run in manifest.runs if states.of[run.spec.id] is state}
        lines += [_line(folder, run, states) for run in list(found.values())[:_SHOWN]]
        if len(found) > _SHOWN:
            lines.append(f"... and {len(found) - _SHOWN} more {state}")
    return "\n".join([*lines, *_slurm_lines(folder, manifest, states), *_ways_on(folder, manifest, states)])


def _slurm_lines(folder: SweepFolder, manifest: SweepManifest, states: States) -> list[str]:
    """Return the number of SLURM tasks by state, and the reason for every unfinished run without a job."""
    jobs = read_jobs(folder)
    if not jobs:
        return []
    try:
        queued = queued_states(jobs)
    except InputError as error:
        return [f"SLURM does not answer: {error}"]
    counts = Counter(queued.values())
    lines = [f"SLURM: {', '.join(f'{count} tasks {state.lower()}' for state, count in sorted(counts.items()))}"]
    lines = lines if counts else ["SLURM: no task is left"]
    latest = {run_id: job for job in jobs for run_id in job.runs}
    left = states.having(State.DUE, State.GONE, State.INTERRUPTED)
    stranded = {run_id: job for run_id, job in latest.items() if run_id in left and job.job_id not in queued}
    ended = ended_states(list(stranded.values()))
    names = {run.spec.id: run.name for run in manifest.runs}
    said = [
        f"left behind: {names[run_id]} ({run_id}): {ADVICE.get(ended.get(job.job_id, ''), 'its job has ended')}"
        for run_id, job in stranded.items()
    ]
    more = [f"... and {len(said) - _SHOWN} more left behind"] if len(said) > _SHOWN else []
    return [*lines, *said[:_SHOWN], *more]


def _states_table(manifest: SweepManifest, states: States) -> str:
    """Return the table of states by row, at most ``_WIDTH`` columns wide."""
    found: dict[str, dict[str, State]] = {label: {} for label in manifest.rows}
    for run in manifest.runs:
        found[run.label][run.spec.id] = states.of[run.spec.id]
    found["all"] = dict(states.of)  # a run that two rows share counts once
    rows = [
        (label, len(of_row), counted(of_row), Cost.of(states.finals[i] for i in of_row if i in states.finals).time)
        for label, of_row in found.items()
    ]
    half = (_WIDTH - len("  runs    device time")) // 2
    headers = [manifest.name, "runs", "of which", "device time"]
    widths = [half - 2, None, half - 2, None]
    return tabulate(rows, headers=headers, maxcolwidths=widths, maxheadercolwidths=half - 2)


def _line(folder: SweepFolder, run: SweepRun, states: States) -> str:
    """Return two lines on a run that is running or has no results: its name, and the reason."""
    state, files = states.of[run.spec.id], folder.run(run.spec.id)
    reasons = {
        State.RUNNING: lambda: f"past step {steps_done(files, run.spec.steps)} of {run.spec.steps}",
        State.FAILED: files.failure,
        State.DAMAGED: lambda: f"{', '.join(states.damaged[run.spec.id])} changed since the run finished",
        State.GONE: lambda: "it was finished; the sweep trains it again",
        State.DIVERGED: lambda: "loss or metrics are not finite",
    }
    which = fill(f"{state}: {run.name} ({run.spec.id})", _WIDTH, **_WRAPPED)
    return f"{which}\n{fill(reasons[state](), _WIDTH, initial_indent='  ', **_WRAPPED)}".rstrip()


def _ways_on(folder: SweepFolder, manifest: SweepManifest, states: States) -> list[str]:
    """Return the number of remaining runs, and commands for the next steps."""
    there = set(states.of.values())
    untrained = {run.spec.id: run for run in manifest.runs if not states.of[run.spec.id].is_settled}
    spent = cost_text(Cost.of(states.finals.values()))
    lines = [spent] if spent else []
    if untrained:
        workers = max(1, len(states.having(State.RUNNING)))
        left: Sequence[float | None] = prices(folder, manifest.runs, states, list(untrained.values()))
        lines.append(f"{len(untrained)} runs left, {price_text(left, workers)}")
    if manifest.search is not None and awaits_winners(manifest.search, manifest.runs):
        trials = of_trials(manifest.search.repeat)
        lines.append(f"then: the search chooses its winners, and trains them on {trials}: {manifest.command()}")
    elif there & {State.DUE, State.GONE, State.INTERRUPTED}:
        lines.append(f"continue: {manifest.command()}")
    if State.FAILED in there:
        lines.append(f"try failed runs again: {manifest.command(retry=[State.FAILED])}")
    if State.DAMAGED in there:
        lines.append(f"train damaged runs again: {manifest.command(retry=[State.DAMAGED])}")
    if there & {State.DONE, State.DIVERGED}:
        lines.append(f"tables: {command('tables', folder.path)}")
    return lines
