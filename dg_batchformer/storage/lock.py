"""Locks: who trains a run. A file that names its owner, who lives as a process here or by a heartbeat elsewhere.

A lock is a file that is created exclusively, which all file systems can, those without hard links or flock too.
"""

import fcntl
import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dg_batchformer.errors import MALFORMED, InputError
from dg_batchformer.storage.processes import place, process_start
from dg_batchformer.storage.safe_read import NOTE, read_text
from dg_batchformer.storage.safe_write import open_own

HEARTBEAT_SECONDS = 30.0
STALE_SECONDS = 300.0
UNNAMED_SECONDS = 30.0  # for which a lock without an owner may be one that is just being written
_WAIT_SECONDS = 1.0  # between two looks at a lock that is waited for
_SLURM = {"slurm_job": "SLURM_JOB_ID", "slurm_restarts": "SLURM_RESTART_COUNT"}


class Busy(InputError):
    """Somebody else holds the lock of a run."""


class Lock:
    """A lock that this process takes, keeps and gives back."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.owner = _identity()

    @property
    def is_mine(self) -> bool:
        """Whether nobody took it over, as may happen to a process that slept for minutes."""
        try:
            content = read_text(self.file, NOTE)
        except FileNotFoundError:
            return False
        try:
            return json.loads(content)["token"] == self.owner["token"]
        except MALFORMED:
            return False

    def check(self) -> None:
        """Raise Busy if the lock was lost: what it guards is not to be written any more."""
        if not self.is_mine:
            raise Busy(
                f"{self.file.parent} was taken over by {_owner_text(self.file)} while this process did not answer; "
                "it stops here, and the other goes on"
            )

    def take(self) -> None:
        """Create the file; raise Busy if somebody alive holds it."""
        try:
            with _alone_in(self.file.parent):
                if os.path.lexists(self.file):
                    _remove_stale(self.file)
                _create(self.file, json.dumps(self.owner))
        except FileExistsError:
            raise Busy(f"{self.file.parent} is in use by {_owner_text(self.file)}") from None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Show signs of life for a while; then remove the file, unless it is somebody else's by now."""
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
            with suppress(OSError):  # a disk that does not answer now may do so later
                mine = self.is_mine
                if mine:
                    os.utime(self.file)


@contextmanager
def held(file: Path, *, waits: bool = False) -> Iterator[Lock]:
    """Hold a lock for a while; while somebody alive holds it, raise Busy or wait."""
    lock = Lock(file)
    while True:
        try:
            lock.take()
            break
        except Busy:
            if not waits:
                raise
        time.sleep(_WAIT_SECONDS)
    with lock.kept():
        yield lock


def is_held(file: Path) -> bool:
    """Whether the owner of a lock lives: its process on this host, its heartbeat elsewhere."""
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
    """Whether a lock was taken on this machine since it started; where there is no boot id, nobody knows."""
    here = place()
    return bool(here["boot"]) and here == {name: owner.get(name) for name in here}


def _is_former_self(owner: dict[str, Any]) -> bool:
    """Whether a lock is of an earlier start of this SLURM job, which ended when the job was requeued."""
    mine = {name: os.environ.get(variable) for name, variable in _SLURM.items()}
    return (
        mine["slurm_job"] is not None
        and mine != {name: owner.get(name) for name in mine}
        and (mine["slurm_job"] == owner.get("slurm_job"))
    )


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Let one process at a time judge and replace a lock, where the file system has flock."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # without flock, _remove_stale alone must tell who is first
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _create(file: Path, content: str) -> None:
    """Create a file with some content; raise FileExistsError where there is one."""
    with open_own(file, "x") as new:
        new.write(content)


def _remove_stale(file: Path) -> None:
    """Move a dead owner's lock away; of several who try, one succeeds. A live owner's stays."""
    seen = owner_of(file)
    if is_held(file):
        return
    moved = file.with_name(f".stale.{secrets.token_hex(16)}")
    try:
        file.rename(moved)
    except FileNotFoundError:
        return
    try:
        if owner_of(moved) != seen:  # somebody took over in between, and this is the new lock
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
    """Return who took a lock: host, pid, SLURM job ...; nothing where it cannot be read."""
    try:
        content = json.loads(read_text(file, NOTE))
    except (OSError, *MALFORMED):
        return {}
    return content if isinstance(content, dict) else {}


def _owner_text(file: Path) -> str:
    owner = owner_of(file)
    return f"process {owner.get('pid')} on {owner.get('host')}" if owner else "another process"
