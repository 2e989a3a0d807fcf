"""Lock files, which name the process that trains a run. Liveness: process id on this host, heartbeat on others.

A lock is a file created exclusively; that works on all file systems, including those without hard links or flock.
"""

import fcntl
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dg_batchformer.errors import MALFORMED, InputError
from dg_batchformer.storage.processes import place, process_start
from dg_batchformer.storage.safe_read import NOTE, read_text
from dg_batchformer.storage.safe_write import open_own

HEARTBEAT_SECONDS = 30.0
STALE_SECONDS = 300.0
UNNAMED_SECONDS = 30.0  # how long a lock without an owner counts as just being written
_WAIT_SECONDS = 1.0  # polling interval
_SLURM = {"slurm_job": "SLURM_JOB_ID", "slurm_restarts": "SLURM_RESTART_COUNT"}


class Busy(InputError):
    """Another process holds the lock of a run."""


class Lock:
    """A lock file that this process acquires, refreshes and releases."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.owner = _identity()

    @property
    def is_mine(self) -> bool:
        """Whether this process still owns the lock; a process that slept for minutes may have lost it."""
        try:
            content = read_text(self.file, NOTE)
        except FileNotFoundError:
            return False
        try:
            return json.loads(content)["token"] == self.owner["token"]
        except MALFORMED:
            return False

    def check(self) -> None:
        """Raise Busy if the lock was lost; the caller must not write any more."""
        if not self.is_mine:
            raise Busy(
                f"{self.file.parent} was taken over by {_owner_text(self.file)} while this process was suspended; "
                "this process stops, and the other one continues"
            )

    def take(self) -> None:
        """Create the lock file; raise Busy if a live process holds it."""
        try:
            with _alone_in(self.file.parent):
                if os.path.lexists(self.file):
                    remove_stale(self.file)
                _create(self.file, json.dumps(self.owner))
        except FileExistsError:
            raise Busy(f"{self.file.parent} is in use by {_owner_text(self.file)}") from None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Send heartbeats inside the context; then remove the file, unless another process owns it by now."""
        ended = threading.Event()
        heart = threading.Thread(target=self._beat, args=(ended,), daemon=True)
        heart.start()
        try:
            yield
        finally:
            ended.set()
            heart.join()
            with suppress(OSError):
                if self.is_mine:
                    self.file.unlink()

    def _beat(self, ended: threading.Event) -> None:
        mine = True
        while mine and not ended.wait(HEARTBEAT_SECONDS):
            with suppress(OSError):  # the disk may answer at the next beat
                mine = self.is_mine
                if mine:
                    os.utime(self.file)


@contextmanager
def held(file: Path, *, waiting: Callable[[], object] | None = None) -> Iterator[Lock]:
    """Hold a lock inside the context.

    Args:
        file: the lock file.
        waiting: called every second while a live process holds the lock, and may raise to give up; None raises Busy
            instead of waiting.

    """
    lock = Lock(file)
    while True:
        try:
            lock.take()
            break
        except Busy:
            if waiting is None:
                raise
        waiting()
        time.sleep(_WAIT_SECONDS)
    with lock.kept():
        yield lock


def is_held(file: Path) -> bool:
    """Return whether the owner of a lock is alive: by process id on this host, by heartbeat on others."""
    owner = owner_of(file)
    if is_here(owner):
        return owner.get("started") is not None and owner["started"] == process_start(owner.get("pid"))
    if _is_former_self(owner):
        return False
    try:
        return time.time() - file.stat().st_mtime < (STALE_SECONDS if owner else UNNAMED_SECONDS)
    except OSError:
        return False


def is_here(owner: dict[str, Any]) -> bool:
    """Return whether a lock was taken on this machine since it booted; False if there is no boot id."""
    here = place()
    return bool(here["boot"]) and here == {name: owner.get(name) for name in here}


def _is_former_self(owner: dict[str, Any]) -> bool:
    """Return whether a lock was taken by an earlier start of this SLURM job, before it was requeued."""
    mine = {name: os.environ.get(variable) for name, variable in _SLURM.items()}
    return (
        mine["slurm_job"] is not None
        and mine != {name: owner.get(name) for name in mine}
        and (mine["slurm_job"] == owner.get("slurm_job"))
    )


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Let one process at a time check and replace a lock, if the file system supports flock."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # without flock, the rename in remove_stale decides
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _create(file: Path, content: str) -> None:
    """Create a file; raise FileExistsError if it exists."""
    with open_own(file, "x") as new:
        new.write(content)


def remove_stale(file: Path) -> None:
    """Remove the lock of a dead owner. If several processes try, one succeeds; a live owner's lock stays."""
    seen = owner_of(file)
    if is_held(file):
        return
    moved = file.with_name(f".stale.{secrets.token_hex(16)}")
    try:
        file.rename(moved)
    except FileNotFoundError:
        return
    try:
        if owner_of(moved) != seen:  # another process took over in between: put its lock back
            _create(file, read_text(moved, NOTE))
    finally:
        moved.unlink()


def _identity() -> dict[str, Any]:
    return {
        **place(),
        "pid": os.getpid(),
        "started": process_start(os.getpid()),
        **{name: os.environ.get(variable) for name, variable in _SLURM.items()},
        "token": secrets.token_hex(16),
    }


def owner_of(file: Path) -> dict[str, Any]:
    """Return the owner in a lock file: host, pid, SLURM job ...; {} if it cannot be read."""
    try:
        content = json.loads(read_text(file, NOTE))
    except (OSError, *MALFORMED):
        return {}
    return content if isinstance(content, dict) else {}


def _owner_text(file: Path) -> str:
    owner = owner_of(file)
    return f"process {owner.get('pid')} on {owner.get('host')}" if owner else "another process"
