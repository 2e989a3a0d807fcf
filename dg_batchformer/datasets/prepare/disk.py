"""The disk that a dataset is written to: is there room, and what is said where there is not."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dg_batchformer.errors import InputError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_WAY_OUT = "make room there, or give a --data_dir on another disk"


def amount(size: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("B", "KiB", "MiB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:,.2f} GiB"


def require_room(folder: Path, needed: int, what: str) -> None:
    """Raise InputError if fewer than ``needed`` bytes are free where ``folder`` lies."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(f"{what} needs {amount(needed)} in {folder}, where {amount(free)} are free; {_WAY_OUT}")


@contextmanager
def writing(folder: Path, needs: str = "") -> Iterator[None]:
    """Say in one sentence that files cannot be put into ``folder``.

    Args:
        folder: what files are put into.
        needs: what is still to be written, for people.

    Raises InputError.

    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            missing = f" ({needs})" if needs else ""
            raise InputError(f"the disk of {folder} is full{missing}; {_WAY_OUT}") from None
        raise InputError(f"cannot read or write {error.filename or folder}: {error.strerror or error}") from None
