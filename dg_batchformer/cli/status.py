"""``status``: what has become of a sweep."""

import argparse
import sys
import time
from pathlib import Path

from dg_batchformer.cli.common import INCOMPLETE, OK, Verbs, positive
from dg_batchformer.spec.manifest import read_declaration
from dg_batchformer.storage.folders import State, SweepFolder
from dg_batchformer.sweep.jobs import queued_states, read_jobs
from dg_batchformer.sweep.launches import is_launched
from dg_batchformer.sweep.plan import run_states
from dg_batchformer.sweep.status import status_text
from dg_batchformer.text.terminal import clear_screen


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its options."""
    text = "Show how many runs are in which state, what failed and why, and the commands that come next."
    verb = verbs.add_parser("status", help="what has become of a sweep", description=text)
    verb.set_defaults(run=run)
    verb.add_argument("folder", type=Path, metavar="DIR", help="as results/quickstart")
    verb.add_argument("--verify", action="store_true",
        help="read every file of trained runs, and name those that differ from what the runs wrote")  # fmt: skip
    verb.add_argument("--watch", type=positive, nargs="?", const=10, metavar="SECONDS",
        help="show it again every so many seconds (10), until nothing is left to wait for")  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Show what has become of a sweep, once or until nothing is left to wait for."""
    folder = SweepFolder(options.folder)
    declared = read_declaration(folder)
    while True:
        states = run_states(folder, declared.runs, verify=options.verify)
        if options.watch and sys.stdout.isatty():
            clear_screen()
        print(status_text(folder, declared, states), flush=True)
        if not options.watch or not (states.having(State.RUNNING) or _is_launched(folder)):
            return INCOMPLETE if states.having(State.FAILED, State.DIVERGED, State.DAMAGED) else OK
        time.sleep(options.watch)


def _is_launched(folder: SweepFolder) -> bool:
    """Whether somebody is about to train more of a sweep."""
    return is_launched(folder) or bool(queued_states(read_jobs(folder)))
