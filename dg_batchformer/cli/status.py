"""``status``: the progress of a sweep or of runs."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dg_batchformer.cli.common import INCOMPLETE, OK, Verbs, positive
from dg_batchformer.results.our_sweep import our_runs, train_command
from dg_batchformer.spec.manifest import read_sweep_manifest
from dg_batchformer.spec.run_folder import read_spec
from dg_batchformer.storage.digests import damaged
from dg_batchformer.storage.folders import RunFolder, State, SweepFolder, refuse_packed
from dg_batchformer.sweep.jobs import queued_states, read_jobs
from dg_batchformer.sweep.launches import is_launched
from dg_batchformer.sweep.plan import run_states
from dg_batchformer.sweep.status import run_text, status_text
from dg_batchformer.text.command import command
from dg_batchformer.text.terminal import clear_screen


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its options."""
    text = "Show how many runs are in which state, which ones failed and why, and the commands to run next."
    verb = verbs.add_parser("status", help="show the progress of a sweep or a run", description=text)
    verb.set_defaults(run=run)
    verb.add_argument("folder", type=Path, metavar="DIR",
        help="folder of a sweep, of a run, or one that holds several runs, such as results/train")  # fmt: skip
    verb.add_argument("--verify", action="store_true",
        help="read every file of trained runs, and list those that changed since the run wrote them")  # fmt: skip
    verb.add_argument("--watch", type=positive, nargs="?", const=10, metavar="SECONDS",
        help="refresh every SECONDS (10) until no run is left to wait for")  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Show the progress of a sweep or of runs, once or until no run is left to wait for."""
    folder = SweepFolder(options.folder)
    refuse_packed(folder)
    if not folder.sweep_file.exists() and (runs := our_runs(options.folder)):
        return _show_runs(options, runs)
    manifest = read_sweep_manifest(folder)
    while True:
        states = run_states(folder, manifest.runs, verify=options.verify)
        if options.watch and sys.stdout.isatty():
            clear_screen()
        print(status_text(folder, manifest, states), flush=True)
        if not options.watch or not (states.having(State.RUNNING) or _is_launched(folder)):
            return INCOMPLETE if states.having(State.FAILED, State.DIVERGED, State.DAMAGED) else OK
        time.sleep(options.watch)


def _show_runs(options: argparse.Namespace, runs: Sequence[RunFolder]) -> int:
    """Show the progress of runs that ``train`` started."""
    specs = [read_spec(run) for run in runs]
    while True:
        states = [_state(run, options.verify) for run in runs]
        if options.watch and sys.stdout.isatty():
            clear_screen()
        for run, spec, state in zip(runs, specs, states, strict=True):
            print(run_text(run, spec, state))
            if not state.is_settled and state is not State.RUNNING:
                print(f"continue: {train_command(spec, run.path)}")
        print(f"tables: {command('tables', options.folder)}", flush=True)
        if not options.watch or State.RUNNING not in states:
            return INCOMPLETE if {State.FAILED, State.DIVERGED, State.DAMAGED} & set(states) else OK
        time.sleep(options.watch)


def _state(run: RunFolder, verify: bool) -> State:
    state = run.state()
    return State.DAMAGED if verify and state.is_final and damaged(run) else state


def _is_launched(folder: SweepFolder) -> bool:
    """Return whether a launch or queued SLURM task will train more of a sweep."""
    return is_launched(folder) or bool(queued_states(read_jobs(folder)))
