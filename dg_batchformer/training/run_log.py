"""Run logging: the watcher's events, log.txt, and error.txt if the run fails."""

import errno
import logging
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

import torch

from dg_batchformer.callbacks.base import Callback
from dg_batchformer.errors import CannotResume, InputError, as_sentence
from dg_batchformer.storage.folders import RunFolder, State
from dg_batchformer.storage.lock import Busy
from dg_batchformer.storage.safe_write import open_own
from dg_batchformer.text.counts import duration
from dg_batchformer.text.printable import printable
from dg_batchformer.training.faults import device_fault, is_device_fault, is_out_of_memory, out_of_memory
from dg_batchformer.training.stop import Interrupted, never

log = logging.getLogger("dg_batchformer")

# Error codes of a disk that is full, over quota, read-only, broken or gone.
_STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTCONN)


class StorageTrouble(InputError):
    """A disk error, which is not an error of the run; it can be resumed when the disk is fixed."""


class Cache(NamedTuple):
    """A cache that is built before training: its name and what it holds, as users know them."""

    name: str
    entry: str


PIXEL_CACHE = Cache("pixel cache", "image")
FEATURE_CACHE = Cache("feature cache", "view")

_SHOW_EVERY = 60  # seconds between notes on a cache that is being built


class Watcher(Callback):
    """The callback that shows a run to people: the console of ``train``, or the launcher of a sweep."""

    building: tuple[Cache, bool] | None = None  # the last cache, and whether this process builds it
    began: tuple[float, int] = (0.0, 0)  # when that began, and with how many entries
    noted = 0.0  # when its progress was last shown

    def line(self, text: str) -> None:
        """A line of output."""

    def note(self, sentence: str) -> None:
        """A message for the user."""

    def caching(self, cache: Cache, done: int, total: int) -> None:
        """Progress of building a cache, in entries; 0 are done while another process builds it.

        Unless overridden, this makes a note at the beginning and every minute.
        """
        now = time.monotonic()
        waits = f"waiting for another process that builds the {cache.name}"
        if self.building != (cache, done > 0):
            self.building, self.began, self.noted = (cache, done > 0), (now, done), now
            self.note(f"building the {cache.name}: {total:,} {cache.entry}s" if done else waits)
        elif done < total and now - self.noted >= _SHOW_EVERY:
            self.noted = now
            began, before = self.began
            if not done:
                self.note(waits)
            elif done > before:
                left = (now - began) / (done - before) * (total - done)
                self.note(f"{cache.name}: {done:,} of {total:,} {cache.entry}s (ETA {duration(left)})")


@contextmanager
def followed_to_the_end(callbacks: Callback) -> Iterator[Callable[[State], None]]:
    """Tell callbacks how a run ends: by the state that is passed to what is yielded, or as interrupted or failed."""
    try:
        yield callbacks.end
    except (Busy, CannotResume, Interrupted, KeyboardInterrupt):
        callbacks.end(State.INTERRUPTED)
        raise
    except Exception:
        callbacks.end(State.FAILED)
        raise


def tell(watcher: Watcher, sentence: str) -> None:
    """Send a note to the watcher and the log."""
    log.info("note: %s", sentence)
    watcher.note(sentence)


def say(watcher: Watcher, line: str) -> None:
    """Send a line to the watcher and the log."""
    log.info("%s", line)
    watcher.line(line)


def caching(watcher: Watcher, cache: Cache, stop: Callable[[], bool] = never) -> Callable[[int, int], None]:
    """Return a progress callback for building a cache, called with (entries done, total).

    It raises Interrupted if ``stop`` returns true.
    """

    def follow(done: int, total: int) -> None:
        watcher.caching(cache, done, total)
        if done == total:
            tell(watcher, f"{cache.name} built: {total:,} {cache.entry}s, which all runs share")
        elif stop():
            raise Interrupted(f"the {cache.name} is not complete; run the same command again to continue")

    return follow


_only: ContextVar[Path | None] = ContextVar("folder of the only run that log lines belong to", default=None)


@contextmanager
def logging_only(folder: RunFolder) -> Iterator[None]:
    """Log to one of several open runs inside the context, instead of to all."""
    token = _only.set(folder.path)
    try:
        yield
    finally:
        _only.reset(token)


class _LogFile(logging.StreamHandler):
    """The log file of a run, with control characters escaped; lines that cannot be written are dropped."""

    def __init__(self, folder: RunFolder) -> None:
        super().__init__(open_own(folder.log_file, "a", encoding="utf-8"))
        self.folder = folder.path

    def filter(self, record: logging.LogRecord) -> bool:
        return _only.get() in (None, self.folder)

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Ignore the error; writing the records will report it."""


@contextmanager
def journal(folder: RunFolder, device: torch.device) -> Iterator[None]:
    """Log to log.txt inside the context; write an error to it and, with its traceback, to error.txt.

    OOM is raised as OutOfMemory, disk errors as StorageTrouble, and GPU failures as DeviceFault. The last two, Busy and
    CannotResume do not mark the run as failed.
    """
    handler = _LogFile(folder)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    except Interrupted as interrupted:
        log.info("interrupted: %s", interrupted)
        raise
    except (Busy, CannotResume) as error:  # another process owns the folder now, or the run can resume as it was begun
        log.info("%s", error)
        raise
    except Exception as error:
        broken = storage_error(error)
        if broken is not None:
            sentence = (
                str(error) if isinstance(error, InputError) else f"{broken.filename or folder.path}: {broken.strerror}"
            )
            raise StorageTrouble(f"{sentence}; fix the disk, then rerun the command to resume") from error
        if is_device_fault(error):
            fault = device_fault(device, error)
            log.error("%s", fault, exc_info=True)
            raise fault from error
        if is_out_of_memory(error):
            refused = out_of_memory(device, error)
            _write_failure(folder, refused)
            raise refused from error
        _write_failure(folder, error)
        raise
    finally:
        log.removeHandler(handler)
        with suppress(OSError):  # the disk may be full
            handler.stream.close()


def storage_error(error: BaseException | None) -> OSError | None:
    """Return the disk error in the chain of causes, or None; torch.save, for example, wraps it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _STORAGE:
            return error
        error = error.__cause__ or error.__context__
    return None


def _write_failure(folder: RunFolder, error: Exception) -> None:
    log.error(as_sentence(error), exc_info=not isinstance(error, InputError))
    folder.fail(as_sentence(error), traceback.format_exc())
