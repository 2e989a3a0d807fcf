"""What people learn of a run while it trains: whoever watches it, log.txt, and error.txt if it fails."""

import errno
import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import torch

from dg_batchformer.errors import InputError, as_sentence
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.storage.folders import RunFolder
from dg_batchformer.storage.lock import Busy
from dg_batchformer.storage.safe_write import open_own
from dg_batchformer.text.printable import printable
from dg_batchformer.training.faults import device_fault, is_device_fault, is_out_of_memory, out_of_memory
from dg_batchformer.training.stop import Interrupted

log = logging.getLogger("dg_batchformer")

# What a disk says that is full, over quota, read-only, broken or gone.
_STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTCONN)


class StorageTrouble(InputError):
    """A disk could not be read or written: no fault of the run, which goes on when that is mended."""


class Watcher(Protocol):
    """Who follows a run: the console of ``train``, or the launcher of a sweep."""

    def begin(self, spec: RunSpec, start: int) -> None:
        """A run begins, or goes on, at a step."""

    def step(self, step: int) -> None:
        """The update of a step is done."""

    def record(self, values: dict[str, Any]) -> None:
        """An evaluation was recorded."""

    def line(self, text: str) -> None:
        """What the run does, in a line."""

    def note(self, sentence: str) -> None:
        """Something a person should know."""

    def caching(self, done: int, images: int) -> None:
        """So many images are in the pixel cache, which is being built."""


def tell(watcher: Watcher, sentence: str) -> None:
    """Tell a person something, and keep it in the log."""
    log.info("note: %s", sentence)
    watcher.note(sentence)


def say(watcher: Watcher, line: str) -> None:
    """Show a line, and keep it in the log."""
    log.info("%s", line)
    watcher.line(line)


def caching(watcher: Watcher) -> Callable[[int, int], None]:
    """Return what follows a pixel cache that is being built, and says when it is."""

    def done(images: int, of: int) -> None:
        watcher.caching(images, of)
        if images == of:
            tell(watcher, f"{of} images decoded into the pixel cache, once for all runs")

    return done


class _LogFile(logging.StreamHandler):
    """A log of which every character shows, and that loses lines rather than a run, where a disk takes none."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Print no traceback: what has to be on the disk says what is wrong with it."""


@contextmanager
def journal(folder: RunFolder, device: torch.device) -> Iterator[None]:
    """Send the log to log.txt for a while; what fails the run goes there and, with its traceback, to error.txt.

    Memory that ran out is raised as OutOfMemory. Trouble with a disk is raised as StorageTrouble, a GPU that failed as
    DeviceFault; these two fail no run.
    """
    handler = _LogFile(open_own(folder.log_file, "a", encoding="utf-8"))
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    except Interrupted:
        log.info("interrupted, state saved")
        raise
    except Busy as error:  # the folder is somebody else's by now
        log.info("%s", error)
        raise
    except Exception as error:
        broken = storage_error(error)
        if broken is not None:
            sentence = (
                str(error) if isinstance(error, InputError) else f"{broken.filename or folder.path}: {broken.strerror}"
            )
            raise StorageTrouble(
                f"{sentence}; nothing whole is lost, and the same command goes on when mended"
            ) from error
        if is_device_fault(error):
            fault = device_fault(device, error)
            log.error("%s", fault, exc_info=True)
            raise fault from error
        if is_out_of_memory(error):
            refused = out_of_memory(device)
            _write_failure(folder, refused)
            raise refused from error
        _write_failure(folder, error)
        raise
    finally:
        log.removeHandler(handler)
        with suppress(OSError):  # of a disk that is full
            handler.stream.close()


def storage_error(error: BaseException | None) -> OSError | None:
    """Return what a disk said, where that is behind an error; torch.save, for one, hides it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _STORAGE:
            return error
        error = error.__cause__ or error.__context__
    return None


def _write_failure(folder: RunFolder, error: Exception) -> None:
    log.error(as_sentence(error), exc_info=not isinstance(error, InputError))
    folder.fail(as_sentence(error), traceback.format_exc())
