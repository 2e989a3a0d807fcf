"""What lies where on disk: run folders and sweep folders, their file names and states, atomic writes."""

import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

from dg_batchformer.errors import MALFORMED, InputError
from dg_batchformer.storage.lock import Lock, held, is_held
from dg_batchformer.storage.safe_read import NOTE, TABLE, Unreadable, read_text
from dg_batchformer.storage.safe_write import open_own
from dg_batchformer.text.printable import printable

KEEP = ("none", "final", "best")  # the model that a run keeps


def cache_dir() -> Path:
    """Return the folder for what can be computed again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dg_batchformer"


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Write a whole file or none: to a temporary one beside it, synced, then renamed."""
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
    """Make a new name last as its content does, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all; what does not show in it is spelled out."""
    with atomic_write(path) as file:
        file.write(printable(text).encode())


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_object(path: Path, limit: int = NOTE) -> dict[str, Any]:
    """Return the object of a JSON file of at most ``limit`` bytes; nothing where it cannot be read."""
    try:
        content = json.loads(read_text(path, limit))
    except (OSError, *MALFORMED):
        return {}
    return content if isinstance(content, dict) else {}


class State(StrEnum):
    """What a run folder says of its run."""

    DUE = "due"
    GONE = "folder is gone"  # was trained to its end, and its folder was deleted
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    UNMARKED = "not marked done"  # of another suite: nothing says whether it ended
    FAILED = "failed"
    DAMAGED = "damaged"  # was trained to its end, and a file differs from what it wrote
    DIVERGED = "diverged"
    DONE = "done"

    @property
    def is_final(self) -> bool:
        """Whether the run was trained to its end."""
        return self in (State.DONE, State.DIVERGED)

    @property
    def is_settled(self) -> bool:
        """Whether nobody goes on with the run unless asked: it is final, failed or damaged."""
        return self.is_final or self in (State.FAILED, State.DAMAGED)


class RunFolder:
    """The files of one run. Nobody else joins their names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spec_file = path / "spec.json"
        self.records_file = path / "results.jsonl"
        self.soup_file = path / "soup.json"
        self.log_file = path / "log.txt"
        self.checkpoint_file = path / "checkpoint.pt"
        self.model_file = path / "model.pt"
        self.batchformer_file = path / "batchformer.pt"
        self.predictions_file = path / "predictions.npz"
        self.done_file = path / "done"
        self.error_file = path / "error.txt"
        self.lock_file = path / "lock"

    @property
    def final_files(self) -> tuple[Path, ...]:
        """The files that do not change once the run is done."""
        written = (self.records_file, self.model_file, self.batchformer_file, self.predictions_file)
        return self.spec_file, self.soup_file, *written

    def state(self, *, locked: bool = False) -> State:
        """Read off the state; ``locked`` says that the lock is the caller's own."""
        if self.done_file.exists():
            return State.DIVERGED if self.outcome().get("outcome") == "diverged" else State.DONE
        if not locked and is_held(self.lock_file):
            return State.RUNNING
        if self.error_file.exists():
            return State.FAILED
        started = self.checkpoint_file.exists() or self.records_file.exists()
        return State.INTERRUPTED if started else State.DUE

    def outcome(self) -> dict[str, Any]:
        """Return what was written when the run was done: outcome, seconds, updates."""
        return read_object(self.done_file)

    def failure(self) -> str:
        """Return the sentence of a failed run, '' if there is none."""
        try:
            return read_text(self.error_file, NOTE, errors="replace").splitlines()[0]
        except (OSError, IndexError):
            return ""

    def fail(self, sentence: str, details: str = "") -> None:
        """Leave why the run failed, if the folder can still be written to."""
        with suppress(OSError):
            self.path.mkdir(parents=True, exist_ok=True)
            write_text(self.error_file, f"{sentence}\n\n{details}".rstrip() + "\n")

    def leave_if_never_begun(self) -> None:
        """Remove what a run left that could not be built: then it has no spec."""
        if not self.spec_file.exists():
            for file in (self.log_file, self.error_file):
                file.unlink(missing_ok=True)
            with suppress(OSError):  # it holds something else
                self.path.rmdir()

    @contextmanager
    def lock(self) -> Iterator[Lock]:
        """Hold the run; raise Busy if somebody alive does, InputError where nothing can be written."""
        with ExitStack() as stack:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                lock = stack.enter_context(held(self.lock_file))
            except OSError as error:
                raise InputError(f"cannot write to {self.path}: {error.strerror}") from None
            for left_over in self.path.glob(".*.*.????????????????????????????????"):  # of a save that was killed
                left_over.unlink(missing_ok=True)
            yield lock


TRAINED = Path("results") / "train"  # where runs are kept that are given no folder
_NAME_LENGTH = 55  # characters, of up to four bytes: file systems take names of 255


def folder_of_run(run_id: str, *words: str, root: Path = TRAINED) -> RunFolder:
    """Return the folder of a run that is given none: the one that ends in its id, else a new one named after words."""
    found = sorted(root.glob(f"*_{run_id}"))
    readable = "_".join(re.sub(r"[^\w.+-]+", "-", word) for word in words)[:_NAME_LENGTH].lstrip("-.")
    return RunFolder(found[0] if found else root / f"{readable}_{run_id}")


def refuse_misplaced(folder: "RunFolder | SweepFolder", run_id: str = "") -> None:
    """Raise InputError where results would lie in a folder of the other kind, inside other results, or around some.

    Args:
        run_id: of a run, whose place within its own sweep is right; '' for a sweep.

    """
    path, own = folder.path.resolve(), "run" if run_id else "sweep"
    kinds = {place: _kind(place) for place in (path, *path.parents)}
    if kinds[path] == own:
        del kinds[path]
    elif run_id and (inner := next((place for place in path.glob("*") if _kind(place)), None)):
        raise InputError(f"{folder.path} holds other results, such as {inner.name}; a run takes a folder of its own")
    for place, kind in kinds.items():
        if kind and not (kind == "sweep" and run_id and path == SweepFolder(place).run(run_id).path):
            lies = "is" if place == path else f"lies in {place},"
            raise InputError(f"{folder.path} {lies} the folder of a {kind}; keep these results elsewhere")


def _kind(place: Path) -> str:
    """Return whose folder a place is: that of a ``sweep``, of a ``run``, or ''."""
    run = RunFolder(place)
    is_run = run.spec_file.is_file() and run.log_file.is_file()
    return "sweep" if SweepFolder(place).sweep_file.is_file() else "run" * is_run


class SweepFolder:
    """The files of one sweep: ``results/<name>/``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sweep_file = path / "sweep.json"
        self.states_log = path / "states.log"
        self.workers_log = path / "workers.log"
        self.runs = path / "runs"
        self.launches = path / "launches"
        self.soups = path / "soups"
        self.slurm = path / "slurm"
        self.jobs_log = self.slurm / "jobs.log"

    def run(self, run_id: str) -> RunFolder:
        """Return the folder of one run."""
        return RunFolder(self.runs / run_id)

    @contextmanager
    def launching(self) -> Iterator[None]:
        """Be known as a launch while it lasts, so that it can be cancelled from elsewhere."""
        self.launches.mkdir(parents=True, exist_ok=True)
        for file in self.launched():
            if not is_held(file):  # of a launch that was killed
                file.unlink(missing_ok=True)
        with held(self.launches / secrets.token_hex(16)):
            yield

    def launched(self) -> list[Path]:
        """Return the locks of launches, of some that were killed too."""
        return [file for file in self.launches.glob("*") if not file.name.startswith(".")]

    def run_names(self) -> set[str]:
        """Return the names of the run folders that are there."""
        try:
            return set(os.listdir(self.runs))  # noqa: PTH208  # of 50,000, Paths would take longer
        except OSError:
            return set()

    def restart(self, run_id: str) -> None:
        """Let a trained run be trained again, from its beginning: nothing says any more that it is done."""
        run = self.run(run_id)
        try:
            run.checkpoint_file.unlink(missing_ok=True)
            run.done_file.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to {run.path}: {error.strerror}") from None
        self.log_final(run_id, State.DUE, None)

    def log_final(self, run_id: str, state: State, seconds: float | None) -> None:
        """Append that a run was trained to its end, so that nobody has to look into its folder again, or is due again.

        Where that cannot be written, the folder still says it.
        """
        with suppress(OSError), open_own(self.states_log, "a") as file:
            file.write(f"\n{run_id} {state} {seconds}\n")  # the first: a torn line ends there

    def final_states(self) -> dict[str, tuple[State, float | None]]:
        """Return the runs logged as trained to their end, each with the seconds it took; torn lines are skipped.

        The log is a cache: a run whose folder is gone since then may be among them.
        """
        try:
            lines = read_text(self.states_log, TABLE, errors="replace").splitlines()
        except OSError:
            return {}
        found = {}
        for line in lines:
            with suppress(ValueError):
                run_id, state, seconds = line.split()
                found[run_id] = State(state), None if seconds == "None" else float(seconds)
                if not found[run_id][0].is_final:
                    del found[run_id]
        return found

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
            return json.loads(read_text(self.sweep_file, TABLE, errors="replace"))
        except FileNotFoundError:
            raise InputError(
                f"{self.path} is no sweep folder: it has no {self.sweep_file.name}; a sweep writes it when it starts"
            ) from None
        except Unreadable:
            raise
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{self.sweep_file} cannot be read: {error}") from None
