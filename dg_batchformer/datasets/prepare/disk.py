"""Check free disk space, and report disk errors in one sentence."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dg_batchformer.errors import InputError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_WAY_OUT = "free space there, or give a --data_dir on another disk"


def amount(size: float) -> str:
    """Format a number of bytes: 12 KiB, 3.4 MiB, 1.25 GiB."""
    for unit in ("B", "KiB", "MiB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:,.2f} GiB"


def require_room(folder: Path, needed: int, what: str) -> None:
    """Raise InputError if fewer than ``needed`` bytes are free on the disk of ``folder``."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(f"{what} needs {amount(needed)} in {folder}, where {amount(free)} are free; {_WAY_OUT}")


@contextmanager
def writing(folder: Path, needs: str = "") -> Iterator[None]:
    """Convert OSError inside the context to InputError.

    Args:
        folder: the folder that files are written to.
        needs: description of the remaining data, for the message.

    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            missing = f" ({needs})" if needs else ""
            raise InputError(f"the disk of {folder} is full{missing}; {_WAY_OUT}") from None
        raise InputError(f"cannot read or write {error.filename or folder}: {error.strerror or error}") from None
