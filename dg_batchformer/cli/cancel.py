"""``cancel``: stop the training of a sweep."""

import argparse
from pathlib import Path

from dg_batchformer.cli.common import INCOMPLETE, OK, Verbs
from dg_batchformer.spec.manifest import read_sweep_manifest
from dg_batchformer.storage.folders import SweepFolder
from dg_batchformer.sweep.jobs import cancel_jobs, queued_states, read_jobs
from dg_batchformer.sweep.launches import end_launches


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its options."""
    text = (
        "Stop the training of a sweep: launches on this machine and its SLURM jobs. Runs are saved; repeat the sweep "
        "command to resume them."
    )
    verb = verbs.add_parser("cancel", help="stop a sweep and save its runs", description=text)
    verb.set_defaults(run=run, works=True)
    verb.add_argument("folder", type=Path, metavar="DIR", help="folder of the sweep, such as results/quickstart")


def run(options: argparse.Namespace) -> int:
    """Save and stop the runs of a sweep: its launches on this machine and its SLURM jobs."""
    folder = SweepFolder(options.folder)
    read_sweep_manifest(folder)  # raises InputError if the folder is not a sweep
    told, elsewhere = end_launches(folder)
    jobs = list(queued_states(read_jobs(folder)))
    cancel_jobs(jobs)
    print(f"stopping {told} launches on this machine and {len(jobs)} SLURM tasks; their runs are saved")
    for host in sorted(elsewhere):
        print(f"a launch on {host} is still running; cancel it there")
    return INCOMPLETE if elsewhere else OK
