"""Open regular files only, up to a size limit: an untrusted file may be a FIFO, a device, or huge.

Opening a FIFO blocks until it has a writer, and reading a device may never end. All readers open files here.
"""

import errno
import io
import os
import stat
from pathlib import Path

from dg_batchformer.errors import InputError

# Size limits in bytes, by kind of file: far above any genuine file, and small enough to hold in memory.
NOTE = 2**20  # a state, a lock, an error, a memo
YAML = 2**19  # written by hand, and slow to parse
TEXT = 2**24  # a run's arguments
TABLE = 2**28  # records, logs, a sweep's manifest, an image manifest, arrays
IMAGE = 2**28
WEIGHTS = 2**36  # models, checkpoints, predictions
ARCHIVE = 2**42  # read in chunks

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class Unreadable(OSError, InputError):
    """A file that is refused: it is not a regular file, or exceeds its size limit."""

    def __str__(self) -> str:
        return f"{self.filename} cannot be read: {self.strerror}"


def open_regular(path: Path | str, limit: int) -> io.BufferedReader:
    """Open a regular file of at most ``limit`` bytes for reading; raise Unreadable for anything else."""
    return os.fdopen(_descriptor(path, limit), "rb")


def read_bytes(path: Path | str, limit: int) -> bytes:
    """Return the content of a regular file of at most ``limit`` bytes; raise Unreadable for anything else."""
    descriptor = _descriptor(path, limit)
    try:
        parts = []
        chunk = max(os.fstat(descriptor).st_size, 2**16) + 1
        left = limit + 1  # one more to detect growth; files of /proc report size 0
        while left and (part := os.read(descriptor, min(left, chunk))):
            parts.append(part)
            left -= len(part)
    finally:
        os.close(descriptor)
    if not left:
        raise _too_large(path, limit)
    return b"".join(parts)


def read_text(path: Path | str, limit: int, *, encoding: str = "utf-8", errors: str = "strict") -> str:
    """Return the text of a regular file, with universal newlines as ``Path.read_text``."""
    text = read_bytes(path, limit).decode(encoding, errors)
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _descriptor(path: Path | str, limit: int) -> int:
    # O_NONBLOCK: a FIFO without a writer opens at once; O_NOCTTY: do not acquire a controlling terminal.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.EOPNOTSUPP):  # a socket, or a device without a driver
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
    return Unreadable(code, f"it is {kind}, not a regular file", str(path))


def _too_large(path: Path | str, limit: int) -> Unreadable:
    return Unreadable(errno.EFBIG, f"it is larger than {limit:,} bytes, the limit for such files", str(path))
