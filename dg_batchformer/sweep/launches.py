"""Running launches of a sweep; those on this machine can be stopped."""

import os
import signal
from contextlib import suppress

from dg_batchformer.storage.folders import SweepFolder
from dg_batchformer.storage.lock import is_held, is_here, owner_of


def is_launched(folder: SweepFolder) -> bool:
    """Return whether a local launch is running, on this machine or another."""
    return any(is_held(file) for file in folder.launched())


def end_launches(folder: SweepFolder) -> tuple[int, set[str]]:
    """Ask all launches on this machine to save their runs and stop; return their number, and the hosts of others."""
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
