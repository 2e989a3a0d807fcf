"""Write regular files only: in a shared folder, a name may be someone's link to another file of ours."""

import errno
import os
import stat
from pathlib import Path
from typing import IO, Any

from dg_batchformer.errors import InputError


class Unwritable(OSError, InputError):
    """A file that is refused for writing: it is a symbolic link, or not a regular file."""

    def __str__(self) -> str:
        return f"cannot write to {self.filename}: {self.strerror}"


def open_own(path: Path | str, mode: str, **given: Any) -> IO[Any]:
    """Open a file for writing as ``open`` does; raise Unwritable for a symbolic link, FIFO or device.

    Args:
        mode: "a" to append, "x" to create, "r+" to update; text, or bytes with "b".
        given: further arguments of ``open``.

    """
    return open(path, mode, opener=_descriptor, **given)  # Path.open has no opener


def _descriptor(path: str, flags: int) -> int:
    try:
        # O_NONBLOCK: a FIFO without a reader is an error at once.
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):  # EMLINK: FreeBSD
            raise Unwritable(errno.ELOOP, "it is a symbolic link, which may lead anywhere; remove it", path) from None
        if error.errno == errno.ENXIO:
            raise Unwritable(errno.ENXIO, "it is not a regular file; remove it", path) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Unwritable(errno.EINVAL, "it is not a regular file; remove it", path)
    os.set_blocking(descriptor, True)
    return descriptor
