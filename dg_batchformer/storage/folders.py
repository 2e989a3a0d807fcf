"""Layout of run folders and sweep folders: file names and states; atomic writes."""

import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, NamedTuple

from dg_batchformer.errors import MALFORMED, InputError
from dg_batchformer.storage.lock import Lock, held, is_held
from dg_batchformer.storage.parquet import read_note
from dg_batchformer.storage.safe_read import NOTE, TABLE, Unreadable, read_text
from dg_batchformer.storage.safe_write import open_own
from dg_batchformer.text.printable import printable

KEEP = ("none", "final", "best")  # which model a run keeps


def cache_dir() -> Path:
    """Return the folder for caches, which can be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dg_batchformer"


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Write a file atomically: to a temporary file in the same folder, synced, then renamed."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(16)}")
    try:
        with open_own(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that a new name in it survives a crash; does nothing if the file system cannot."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, with invisible characters escaped."""
    with atomic_write(path) as file:
        file.write(printable(text).encode())


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_object(path: Path, limit: int = NOTE) -> dict[str, Any]:
    """Return the object in a JSON file of at most ``limit`` bytes; {} if it cannot be read."""
    try:
        content = json.loads(read_text(path, limit))
    except (OSError, *MALFORMED):
        return {}
    return content if isinstance(content, dict) else {}


class State(StrEnum):
    """State of a run, as read from its folder."""

    DUE = "due"
    GONE = "folder is gone"  # finished, and its folder was deleted since
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    UNMARKED = "not marked done"  # of another suite: whether it finished is unknown
    OUTRACED = "out of the race"  # stopped at a rung, with a checkpoint to continue from
    FAILED = "failed"
    DAMAGED = "damaged"  # finished, and one of its files changed since
    DIVERGED = "diverged"
    DONE = "done"

    @property
    def is_final(self) -> bool:
        """Whether training finished."""
        return self in (State.DONE, State.DIVERGED)

    @property
    def is_settled(self) -> bool:
        """Whether the run is final, out of the race, failed or damaged: it continues only on request."""
        return self.has_ended or self in (State.FAILED, State.DAMAGED)

    @property
    def has_ended(self) -> bool:
        """Whether training ended as it should: it finished, or a race stopped it."""
        return self.is_final or self is State.OUTRACED


class TimedState(NamedTuple):
    """The state of a run and, if it has ended, its device time.

    Args:
        seconds: device time of training and evaluation; None if unknown. A run that was trained together with others
            counts an equal part of the time of the updates that they shared.
        seconds_alone: device time that the run would have needed alone, if it shared its training; else None.
        seconds_spared: estimated device time that the run would have needed to the end, if a race stopped it; else
            None.

    """

    state: State
    seconds: float | None = None
    seconds_alone: float | None = None
    seconds_spared: float | None = None


class _File:
    """A file of a run folder, by its name; its path is built when it is asked for, as sweeps have many runs."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, folder: "RunFolder", owner: type) -> Path:
        return folder.path / self.name


class RunFolder:
    """Paths of the files of one run; the only place that defines their names."""

    spec_file = _File("spec.json")
    launch_file = _File("launch.json")
    records_file = _File("results.jsonl")
    soup_file = _File("soup.json")
    log_file = _File("log.txt")
    checkpoint_file = _File("checkpoint.pt")
    model_file = _File("model.pt")
    batchformer_file = _File("batchformer.pt")
    predictions_file = _File("predictions.npz")
    done_file = _File("done")
    race_file = _File("race.json")  # where a race stopped the run
    error_file = _File("error.txt")
    lock_file = _File("lock")

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def final_files(self) -> tuple[Path, ...]:
        """Files that do not change once the run is done."""
        return self.spec_file, self.soup_file, self.records_file, *self.kept_files

    @property
    def kept_files(self) -> tuple[Path, ...]:
        """Files that a run writes only if asked to keep its model or predictions."""
        return self.model_file, self.batchformer_file, self.predictions_file

    def state(self, *, locked: bool = False) -> State:
        """Return the state; with ``locked``, the caller itself holds the lock."""
        if self.done_file.exists():
            return self.final_state().state
        if not locked and is_held(self.lock_file):
            return State.RUNNING
        if self.error_file.exists():
            return State.FAILED
        if self.race_file.exists():
            return State.OUTRACED
        started = self.checkpoint_file.exists() or self.records_file.exists()
        return State.INTERRUPTED if started else State.DUE

    def outcome(self) -> dict[str, Any]:
        """Return the content of ``done``: outcome, seconds, digests; {} if there is none."""
        return read_object(self.done_file)

    def final_state(self) -> TimedState:
        """Read how the finished run ended."""
        told = self.outcome()
        return TimedState(State.DIVERGED if told.get("outcome") == "diverged" else State.DONE, *_times(told))

    def outraced_state(self) -> TimedState:
        """Read the times of a run that a race stopped."""
        return TimedState(State.OUTRACED, *_times(read_object(self.race_file)))

    def failure(self) -> str:
        """Return the error message of a failed run, '' if there is none."""
        try:
            return read_text(self.error_file, NOTE, errors="replace").splitlines()[0]
        except (OSError, IndexError):
            return ""

    def fail(self, sentence: str, details: str = "") -> None:
        """Write why the run failed, if the folder is still writable."""
        with suppress(OSError):
            self.path.mkdir(parents=True, exist_ok=True)
            write_text(self.error_file, f"{sentence}\n\n{details}".rstrip() + "\n")

    def leave_if_never_begun(self) -> None:
        """Remove the log and error files of a run that failed before it wrote its spec."""
        if not self.spec_file.exists():
            for file in (self.log_file, self.error_file):
                file.unlink(missing_ok=True)
            with suppress(OSError):  # not empty
                self.path.rmdir()

    @contextmanager
    def lock(self) -> Iterator[Lock]:
        """Hold the lock of the run; raise Busy if a live process holds it, InputError if the folder is not writable."""
        with ExitStack() as stack:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                lock = stack.enter_context(held(self.lock_file))
            except OSError as error:
                raise InputError(f"cannot write to {self.path}: {error.strerror}") from None
            for left_over in self.path.glob(".*.*.????????????????????????????????"):  # from a save that was killed
                left_over.unlink(missing_ok=True)
            yield lock


def _times(told: dict[str, Any]) -> list[float | None]:
    """Return the device times of a run, as its folder has them."""
    names = ("seconds", "seconds_alone", "seconds_spared")
    return [float(value) if isinstance(value := told.get(name), int | float) else None for name in names]


TRAINED = Path("results") / "train"  # default parent of run folders
_NAME_LENGTH = 55  # characters of up to four bytes each: file systems limit names to 255 bytes


def folder_of_run(run_id: str, *words: str, root: Path = TRAINED) -> RunFolder:
    """Return the default folder of a run: an existing one whose name ends in its id, else a new one named by words."""
    found = sorted(root.glob(f"*_{run_id}"))
    readable = "_".join(re.sub(r"[^\w.+-]+", "-", word) for word in words)[:_NAME_LENGTH].lstrip("-.")
    return RunFolder(found[0] if found else root / f"{readable}_{run_id}")


def refuse_misplaced(folder: "RunFolder | SweepFolder", run_id: str = "") -> None:
    """Raise InputError for a folder that belongs to the other kind, lies inside other results, or contains some.

    Args:
        run_id: of a run, which may lie inside its own sweep; '' for a sweep.

    """
    path, own = folder.path.resolve(), "run" if run_id else "sweep"
    if own == "sweep" and path == TRAINED.resolve():
        raise InputError(f"{folder.path} is where train writes its runs; give the sweep file another name")
    kinds = {place: _kind(place) for place in (path, *path.parents)}
    if kinds[path] == own:
        del kinds[path]
    elif run_id and (inner := next((place for place in path.glob("*") if _kind(place)), None)):
        raise InputError(f"{folder.path} holds other results, such as {inner.name}; a run takes a folder of its own")
    for place, kind in kinds.items():
        if kind and not (kind == "sweep" and run_id and path == SweepFolder(place).run(run_id).path):
            lies = "is" if place == path else f"lies in {place},"
            raise InputError(f"{folder.path} {lies} the folder of a {kind}; keep these results elsewhere")


def refuse_packed(folder: "SweepFolder") -> None:
    """Raise InputError for a sweep of packed records, which has no runs to follow."""
    if folder.is_packed:
        raise InputError(f"{folder.path} holds packed records without run folders; use tables, compare or report")


def _kind(place: Path) -> str:
    """Return what a folder holds: ``sweep``, ``run``, or '' for neither."""
    run = RunFolder(place)
    is_run = run.spec_file.is_file() and run.log_file.is_file()
    return "sweep" if SweepFolder(place).is_sweep else "run" * is_run


class SweepFolder:
    """Paths of the files of one sweep: ``results/<name>/``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sweep_file = path / "sweep.json"
        self.winners_file = path / "winners.json"
        self.packed_file = path / "records.parquet"
        self.states_log = path / "states.log"
        self.workers_log = path / "workers.log"
        self.runs = path / "runs"
        self.launches = path / "launches"
        self.soups = path / "soups"
        self.slurm = path / "slurm"
        self.jobs_log = self.slurm / "jobs.log"

    @property
    def is_packed(self) -> bool:
        """Whether packed records stand for the run folders, which are elsewhere."""
        return self.packed_file.exists() and not self.sweep_file.exists()

    @property
    def is_sweep(self) -> bool:
        """Whether a sweep is there, packed or with its run folders."""
        return self.sweep_file.exists() or self.packed_file.exists()

    def run(self, run_id: str) -> RunFolder:
        """Return the folder of one run."""
        return RunFolder(self.runs / run_id)

    @contextmanager
    def launching(self) -> Iterator[None]:
        """Hold the lock of a launch, so that ``cancel`` can find it."""
        self.launches.mkdir(parents=True, exist_ok=True)
        for file in self.launched():
            if not is_held(file):  # from a launch that was killed
                file.unlink(missing_ok=True)
        with held(self.launches / secrets.token_hex(16)):
            yield

    def launched(self) -> list[Path]:
        """Return the lock files of launches, including those that were killed."""
        return [file for file in self.launches.glob("*") if not file.name.startswith(".")]

    def run_names(self) -> set[str]:
        """Return the names of the existing run folders."""
        try:
            return set(os.listdir(self.runs))  # noqa: PTH208  # building Paths is slow for 50,000 runs
        except OSError:
            return set()

    def restart(self, run_id: str) -> None:
        """Mark a finished run as due again, to be trained from step 0; raise InputError if it is not writable."""
        run = self.run(run_id)
        try:
            run.checkpoint_file.unlink(missing_ok=True)
            run.done_file.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to {run.path}: {error.strerror}") from None
        self.log_final(run_id, State.DUE, None)

    def log_final(self, run_id: str, state: State, seconds: float | None, seconds_alone: float | None = None) -> None:
        """Append a final state, or DUE to withdraw one, to the log that saves reading every run folder.

        A failed write is ignored, as the run folder holds the state too.
        """
        alone = "" if seconds_alone is None else f" {seconds_alone}"
        with suppress(OSError), open_own(self.states_log, "a") as file:
            file.write(f"\n{run_id} {state} {seconds}{alone}\n")  # the leading newline ends a torn line

    def log_end(self, run_id: str) -> None:
        """Append the state of a finished run to the log, as its folder has it; nothing if a race stopped it."""
        if self.run(run_id).done_file.exists():
            self.log_final(run_id, *self.run(run_id).final_state()[:3])

    def final_states(self) -> dict[str, TimedState]:
        """Return the logged final states by run id; torn lines are skipped.

        The log is a cache: it may list runs whose folder was deleted since.
        """
        try:
            lines = read_text(self.states_log, TABLE, errors="replace").splitlines()
        except OSError:
            return {}
        found = {}
        for line in filter(None, lines):  # every entry begins with a newline
            with suppress(ValueError):
                run_id, state, *times = line.split()
                seconds, alone = (None if time == "None" else float(time) for time in [*times, "None"][:2])
                found[run_id] = TimedState(State(state), seconds, alone)
                if not found[run_id].state.is_final:
                    del found[run_id]
        return found

    def write(self, declaration: dict[str, Any]) -> None:
        """Write the sweep manifest, with every run expanded; raise InputError if the folder is not writable."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_json(self.sweep_file, declaration)
        except OSError as error:
            raise InputError(f"cannot write to {self.path}: {error.strerror}") from None

    def read(self) -> dict[str, Any]:
        """Read the sweep manifest; raise InputError if it is missing or unreadable."""
        if self.is_packed:
            return read_note(self.packed_file).get("sweep") or {}
        try:
            return json.loads(read_text(self.sweep_file, TABLE, errors="replace"))
        except FileNotFoundError:
            raise InputError(
                f"{self.path} is not a sweep folder: it has no {self.sweep_file.name}; a sweep writes it when it starts"
            ) from None
        except Unreadable:
            raise
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{self.sweep_file} cannot be read: {error}") from None
