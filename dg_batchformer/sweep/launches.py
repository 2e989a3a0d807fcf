"""Launches of a sweep that are under way: those on this machine can be asked to end."""

import os
import signal
from contextlib import suppress

from dg_batchformer.storage.folders import SweepFolder
from dg_batchformer.storage.lock import is_held, is_here, owner_of


def is_launched(folder: SweepFolder) -> bool:
    """Whether a local launch is under way, here or elsewhere."""
    return any(is_held(file) for file in folder.launched())


def end_launches(folder: SweepFolder) -> tuple[int, set[str]]:
    """Ask every local launch on this machine to save its runs and end; return how many, and the hosts of others."""
    told, elsewhere = 0, set[str]()
    for file in folder.launched():
        owner = owner_of(file)
        if not is_held(file):
            continue
        if is_here(owner):
            with suppress(ProcessLookupError):
                os.kill(owner["pid"], signal.SIGTERM)
                told += 1
        else:
            elsewhere.add(str(owner.get("host")))
    return told, elsewhere
