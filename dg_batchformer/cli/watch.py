"""``watch``: show a sweep on one screen that updates while it trains."""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from statistics import fmean

from tabulate import tabulate

from dg_batchformer.cli.common import INCOMPLETE, OK, Verbs, positive
from dg_batchformer.results.collect import collect
from dg_batchformer.results.collection import CollectedRun, Collection
from dg_batchformer.results.selection import METHODS
from dg_batchformer.runtime.memory import available_memory
from dg_batchformer.spec.manifest import SweepManifest, SweepRun, read_sweep_manifest
from dg_batchformer.storage.folders import State, SweepFolder, refuse_packed
from dg_batchformer.sweep.plan import States, counted, price_text, prices, run_states
from dg_batchformer.text.counts import how_many
from dg_batchformer.text.printable import printable
from dg_batchformer.text.terminal import clear_screen

_WIDTH = 80  # columns
_ROWS, _RUNNING, _FAILED = 12, 8, 4  # the most lines of each kind; all fit in 24 to 40 lines
_LABEL = 24  # characters, of a row's name


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its options."""
    verb = verbs.add_parser(
        "watch",
        help="show a live screen of a sweep: progress, losses, accuracies, failures",
        description="Show a live screen of a sweep until no run is left to train. Ctrl-C leaves the screen and stops "
        "no run. Without a terminal, the screen is printed once.",
    )
    verb.set_defaults(run=run)
    verb.add_argument("folder", type=Path, metavar="DIR", help="folder of the sweep, such as results/quickstart")
    verb.add_argument("--every", type=positive, default=2, metavar="SECONDS",
        help="seconds between two updates (default: %(default)s)")  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Show the screen until every run is settled."""
    folder = SweepFolder(options.folder)
    refuse_packed(folder)
    while True:
        manifest = read_sweep_manifest(folder)
        states = run_states(folder, manifest.runs)
        text = screen(folder, manifest, states)
        if sys.stdout.isatty():
            clear_screen()
        print(text, flush=True)
        if not sys.stdout.isatty() or all(state.is_settled for state in states.of.values()):
            return INCOMPLETE if states.having(State.FAILED, State.DIVERGED) else OK
        time.sleep(options.every)


def screen(folder: SweepFolder, manifest: SweepManifest, states: States) -> str:
    """Return the text of the screen, at most 80 characters wide."""
    collection = collect([folder.path], unfinished=True)
    lines = [
        f"{manifest.name}: {counted(states.of)}",
        _bar(states),
        *_time_left(folder, manifest, states),
        "",
        _rows_table(manifest, states, collection),
        *_running(manifest, states, collection),
        *_failed(folder, manifest, states),
        "",
        f"{_memory(collection)}; {datetime.now():%H:%M:%S}",
    ]
    return "\n".join(printable(line)[:_WIDTH] for text in lines for line in text.split("\n"))


def _bar(states: States) -> str:
    ended = sum(state.has_ended for state in states.of.values())
    filled = 40 * ended // max(len(states.of), 1)
    return f"[{'#' * filled}{'.' * (40 - filled)}] {ended}/{len(states.of)}"


def _time_left(folder: SweepFolder, manifest: SweepManifest, states: States) -> list[str]:
    """Return a line on the runs that are left, if there are any."""
    left = {run.spec.id: run for run in manifest.runs if not states.of[run.spec.id].is_settled}
    if not left:
        return []
    seconds = prices(folder, manifest.runs, states, list(left.values()))
    return [f"{how_many(len(left), 'run')} left, {price_text(seconds, max(1, len(states.having(State.RUNNING))))}"]


def _rows_table(manifest: SweepManifest, states: States, collection: Collection) -> str:
    """Return a table of rows: progress, mean last loss and mean selected accuracies of the runs with records."""
    lines = []
    for label in manifest.rows[:_ROWS]:
        ids = {run.spec.id for run in manifest.runs if run.label == label}
        runs = [run for run in collection.runs if run.label == label and len(run.evaluations)]
        ended = sum(states.of[run_id].has_ended for run_id in ids)
        found = [score for run in runs for score in _scores(run)]
        losses = [run.evaluations.latest()["loss"] for run in runs if "loss" in run.evaluations.latest()]
        lines.append(
            [
                label[:_LABEL],
                f"{ended}/{len(ids)}",
                f"{fmean(losses):.3f}" if losses else "",
                f"{100 * fmean(validation for validation, _ in found):.1f}" if found else "",
                f"{100 * fmean(test for _, test in found):.1f}" if found else "",
            ]
        )
    table = tabulate(lines, headers=["row", "done", "loss", "validation %", "test %"], disable_numparse=True)
    left = len(manifest.rows) - _ROWS
    return f"{table}\n... and {how_many(left, 'more row')}" if left > 0 else table


def _scores(run: CollectedRun) -> Iterator[tuple[float, float]]:
    """Yield validation and test accuracy of the step that training-domain selection chooses in a run so far."""
    for env in run.reported:
        score = METHODS["training-domain"].select([run], env, run.evaluations.num_environments)
        if score is not None:
            yield score.validation, score.test


def _running(manifest: SweepManifest, states: States, collection: Collection) -> list[str]:
    """Return the last evaluation of each running run, one line each."""
    recorded = {run.path.name: run for run in collection.runs}
    running = _distinct(run for run in manifest.runs if states.of[run.spec.id] is State.RUNNING)
    lines = [_last_evaluation(run, recorded.get(run.spec.id)) for run in running[:_RUNNING]]
    return ["", "training:", *lines, *_more(len(running) - _RUNNING)] if lines else []


def _last_evaluation(run: SweepRun, recorded: CollectedRun | None) -> str:
    spec = run.spec
    name = f"  {run.label[:_LABEL]} {spec.environment_names(spec.test_envs)} {spec.trial_seed}"
    if recorded is None or not len(recorded.evaluations):
        return f"{name}: no evaluation yet"
    latest = recorded.evaluations.latest()
    validation = [latest[key] for env in spec.train_envs if (key := f"env{env}_out_acc") in latest]
    tests = [latest[key] for env in spec.test_envs if (key := f"env{env}_in_acc") in latest]
    said = [f"step {recorded.evaluations.steps[-1]}/{spec.steps - 1}"]
    said += [f"loss {latest['loss']:.3f}"] if "loss" in latest else []
    said += [f"val {100 * fmean(validation):.1f}"] if validation else []
    said += [f"test {100 * fmean(tests):.1f}"] if tests else []
    return f"{name}: {' '.join(said)}"


def _failed(folder: SweepFolder, manifest: SweepManifest, states: States) -> list[str]:
    """Return the runs that failed or diverged, and the reasons, one line each."""
    bad = (State.FAILED, State.DIVERGED)
    failed = _distinct(run for run in manifest.runs if states.of[run.spec.id] in bad)
    lines = [f"  {run.name}: {folder.run(run.spec.id).failure() or 'diverged'}" for run in failed[:_FAILED]]
    return ["", "failed or diverged:", *lines, *_more(len(failed) - _FAILED)] if lines else []


def _distinct(runs: Iterator[SweepRun]) -> Sequence[SweepRun]:
    return list({run.spec.id: run for run in runs}.values())


def _more(number: int) -> list[str]:
    return [f"  ... and {number} more"] * (number > 0)


def _memory(collection: Collection) -> str:
    """Return the peak GPU memory of a run and the free memory of this machine, in words."""
    peaks = [run.evaluations.latest().get("mem_gb", 0.0) for run in collection.runs if len(run.evaluations)]
    said = [f"GPU memory of a run: up to {max(peaks):.1f} GiB"] if any(peaks) else []
    free = available_memory()
    said += [] if free is None else [f"free memory here: {free / 2**30:.1f} GiB"]
    return "; ".join(said)
