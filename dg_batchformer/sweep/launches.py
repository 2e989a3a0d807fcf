"""Launches of a sweep that are under way: those on this machine can be asked to end."""

import os
import signal
from contextlib import suppress

from dg_batchformer.lock import is_held, is_here, owner_of
from dg_batchformer.store import SweepFolder


def end_launches(folder: SweepFolder) -> tuple[int, set[str]]:
    """Ask every local launch on this machine to save its runs and end; return how many, and the hosts of others.

    Launches inside SLURM jobs are left to scancel.
    """
    told, elsewhere = 0, set[str]()
    for file in folder.launches.glob("*") if folder.launches.is_dir() else ():
        owner = owner_of(file)
        if not is_held(file) or owner.get("slurm_job"):
            continue
        if is_here(owner):
            with suppress(ProcessLookupError):
                os.kill(owner["pid"], signal.SIGTERM)
                told += 1
        else:
            elsewhere.add(str(owner.get("host")))
    return told, elsewhere
