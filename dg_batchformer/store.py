"""What lies where on disk: run folders and sweep folders, their file names, states and locks, atomic writes."""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

from dg_batchformer.errors import InputError

HEARTBEAT_SECONDS = 30.0
STALE_SECONDS = 300.0


def cache_dir() -> Path:
    """Return the folder for what can be computed again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dg_batchformer"


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Write a whole file or none: to a temporary one beside it, synced, then renamed."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with atomic_write(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(path, json.dumps(value, indent=1) + "\n")


class State(StrEnum):
    """What a run folder says of its run."""

    DUE = "due"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    DIVERGED = "diverged"
    DONE = "done"

    @property
    def is_final(self) -> bool:
        """Whether the run was trained to its end."""
        return self in (State.DONE, State.DIVERGED)


class Busy(InputError):
    """Somebody else holds the lock of a run."""


class RunFolder:
    """The files of one run. Nobody else joins their names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spec_file = path / "spec.json"
        self.records_file = path / "results.jsonl"
        self.log_file = path / "log.txt"
        self.checkpoint_file = path / "checkpoint.pt"
        self.model_file = path / "model.pt"
        self.batchformer_file = path / "batchformer.pt"
        self.done_file = path / "done"
        self.error_file = path / "error.txt"
        self.lock_file = path / "lock"

    def state(self, *, locked: bool = False) -> State:
        """Read off the state; ``locked`` says that the lock is the caller's own."""
        if self.done_file.exists():
            return State.DIVERGED if self.outcome().get("outcome") == "diverged" else State.DONE
        if not locked and _is_alive(self.lock_file):
            return State.RUNNING
        if self.error_file.exists():
            return State.FAILED
        started = self.checkpoint_file.exists() or self.records_file.exists()
        return State.INTERRUPTED if started else State.DUE

    def outcome(self) -> dict[str, Any]:
        """Return what was written when the run was done: outcome, seconds, updates."""
        try:
            content = json.loads(self.done_file.read_text())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def failure(self) -> str:
        """Return the sentence of a failed run, '' if there is none."""
        try:
            return self.error_file.read_text(errors="replace").splitlines()[0]
        except (OSError, IndexError):
            return ""

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run; raise Busy if somebody alive does. A heartbeat runs while it is held."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to {self.path}: {error.strerror}") from None
        try:
            _take(self.lock_file)
        except FileExistsError:
            raise Busy(f"{self.path} is being trained by {_owner_text(self.lock_file)}") from None
        except OSError as error:
            raise InputError(f"cannot write to {self.path}: {error.strerror}") from None
        ended = threading.Event()
        heart = threading.Thread(target=_beat, args=(self.lock_file, ended), daemon=True)
        heart.start()
        try:
            yield
        finally:
            ended.set()
            heart.join()
            self.lock_file.unlink(missing_ok=True)


class SweepFolder:
    """The files of one sweep: ``results/<name>/``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sweep_file = path / "sweep.json"
        self.runs = path / "runs"
        self.tables = path / "tables"

    def run(self, run_id: str) -> RunFolder:
        """Return the folder of one run."""
        return RunFolder(self.runs / run_id)

    def write(self, declaration: dict[str, Any]) -> None:
        """Keep the declaration as it was expanded."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_json(self.sweep_file, declaration)
        except OSError as error:
            raise InputError(f"cannot write to {self.path}: {error.strerror}") from None

    def read(self) -> dict[str, Any]:
        """Read the declaration as it was expanded; raise InputError where there is none."""
        try:
            return json.loads(self.sweep_file.read_text(errors="replace"))
        except FileNotFoundError:
            raise InputError(
                f"{self.path} is no sweep folder: it has no {self.sweep_file.name}; a sweep writes it when it starts"
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{self.sweep_file} cannot be read: {error}") from None


def _take(lock: Path) -> None:
    """Create the lock with its whole content at once; raise FileExistsError if it is held."""
    mine = lock.with_name(f".lock.{uuid.uuid4().hex}")
    mine.write_text(json.dumps(_identity()))
    try:
        try:
            os.link(mine, lock)
        except FileExistsError:
            _remove_stale(lock)
            os.link(mine, lock)
    finally:
        mine.unlink(missing_ok=True)


def _remove_stale(lock: Path) -> None:
    """Move a dead owner's lock away; of several who try, one succeeds. A live owner's stays."""
    seen = _owner(lock)
    if _is_alive(lock):
        return
    moved = lock.with_name(f".stale.{uuid.uuid4().hex}")
    try:
        lock.rename(moved)
    except FileNotFoundError:
        return
    if _owner(moved) != seen:  # somebody took over in between, and this is the new lock
        os.link(moved, lock)
    moved.unlink()


def _identity() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": _process_start(os.getpid()),
        "boot": _boot_id(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "token": uuid.uuid4().hex,
    }


def _owner(lock: Path) -> dict[str, Any]:
    try:
        content = json.loads(lock.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _owner_text(lock: Path) -> str:
    owner = _owner(lock)
    return f"process {owner.get('pid')} on {owner.get('host')}" if owner else "another process"


def _is_alive(lock: Path) -> bool:
    """Whether the owner of a lock lives: its process on this host, its heartbeat elsewhere."""
    owner = _owner(lock)
    here = owner.get("host") == socket.gethostname() and owner.get("boot") == _boot_id()
    if here and owner["boot"]:  # no boot id, no /proc: then the heartbeat decides
        return owner.get("started") is not None and owner["started"] == _process_start(owner["pid"])
    try:
        return time.time() - lock.stat().st_mtime < STALE_SECONDS
    except OSError:
        return False


def _process_start(pid: int) -> str | None:
    """Return when a process started, in ticks since boot; None if there is none or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _beat(lock: Path, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT_SECONDS):
        try:
            os.utime(lock)
        except OSError:
            return
