"""Read regular files only: a file that others made may be a FIFO, a device, or larger than its kind can be.

Opening a FIFO waits for a writer and reading a device may never end, so every reader opens its files here.
"""

import errno
import io
import os
import stat
from pathlib import Path

from dg_batchformer.errors import InputError

# How many bytes a file of each kind may have: far more than an honest one has, and few enough to hold in memory.
NOTE = 2**20  # a state, a lock, an error, a memo
YAML = 2**19  # what people write, and slow to read
TEXT = 2**24  # a run's arguments
TABLE = 2**28  # records, logs, a sweep's manifest, an image manifest, arrays
IMAGE = 2**28
WEIGHTS = 2**36  # models, checkpoints, predictions: only what they hold is read
ARCHIVE = 2**42  # read in parts

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class Unreadable(OSError, InputError):
    """A file that is not opened: it is not a regular file, or larger than its kind may be."""

    def __str__(self) -> str:
        return f"{self.filename} cannot be read: {self.strerror}"


def open_regular(path: Path | str, limit: int) -> io.BufferedReader:
    """Open a regular file of at most ``limit`` bytes for reading; raise Unreadable for anything else."""
    return os.fdopen(_descriptor(path, limit), "rb")


def read_bytes(path: Path | str, limit: int) -> bytes:
    """Return what a regular file of at most ``limit`` bytes holds; raise Unreadable for anything else."""
    descriptor = _descriptor(path, limit)
    try:
        parts = []
        chunk = max(os.fstat(descriptor).st_size, 2**16) + 1
        left = limit + 1  # one more: a file may grow, and those of /proc have no size
        while left and (part := os.read(descriptor, min(left, chunk))):
            parts.append(part)
            left -= len(part)
    finally:
        os.close(descriptor)
    if not left:
        raise _too_large(path, limit)
    return b"".join(parts)


def read_text(path: Path | str, limit: int, *, encoding: str = "utf-8", errors: str = "strict") -> str:
    """Return the text of a regular file, with the line ends of ``Path.read_text``."""
    text = read_bytes(path, limit).decode(encoding, errors)
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _descriptor(path: Path | str, limit: int) -> int:
    # O_NONBLOCK: a FIFO without a writer opens at once; O_NOCTTY: a terminal does not become this process's own.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.EOPNOTSUPP):  # a socket, or a device that nothing drives
            raise _not_regular(path, Path(path).stat().st_mode) from None
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _not_regular(path, status.st_mode)
        if status.st_size > limit:
            raise _too_large(path, limit)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _not_regular(path: Path | str, mode: int) -> Unreadable:
    kind = _KINDS.get(stat.S_IFMT(mode), "of an unknown kind")
    code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
    return Unreadable(code, f"it is {kind}, and only regular files are read", str(path))


def _too_large(path: Path | str, limit: int) -> Unreadable:
    return Unreadable(errno.EFBIG, f"it has more than the {limit:,} bytes that such a file may have", str(path))
