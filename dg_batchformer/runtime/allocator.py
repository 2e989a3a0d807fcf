"""The allocator of processes that train on CPUs: tcmalloc, where it is installed.

glibc returns large blocks to the kernel as they are freed. The activations of every step are then fresh pages that the
kernel has to clear first, up to a fifth of a step (``results/speed``). tcmalloc keeps them, and needs no more memory.
A process can only get it when it starts, by LD_PRELOAD; what somebody has set there, even to nothing, is left alone.
"""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes.util import find_library
from pathlib import Path

_VARIABLE = "LD_PRELOAD"
_NAME = "tcmalloc_minimal"
_RELEASE = "MallocExtension_ReleaseFreeMemory"  # the symbol by which it is known, and returns memory
_GPUS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # where there is one, activations lie elsewhere


def tcmalloc() -> str | None:
    """Return the library that processes which train load first; None where it is not there, or a GPU is."""
    if sys.platform != "linux" or any(Path(gpu).exists() for gpu in _GPUS):
        return None
    own = next(Path(sys.prefix, "lib").glob(f"lib{_NAME}.so.?"), None)  # as conda installs it
    return find_library(_NAME) if own is None else str(own)


def start_over() -> None:
    """Replace this process by the same command on tcmalloc; return where it runs on it, or is not to."""
    library = _to_preload()
    if library is None:
        keep_from_children()
        return
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, _VARIABLE: library})


@contextmanager
def preloaded() -> Iterator[None]:
    """Have a process that is started within run on tcmalloc."""
    library = _to_preload()
    if library is None:
        yield
        return
    os.environ[_VARIABLE] = library
    try:
        yield
    finally:
        del os.environ[_VARIABLE]


def _to_preload() -> str | None:
    return None if _VARIABLE in os.environ else tcmalloc()


def keep_from_children() -> None:
    """Spare programs that this process starts the tcmalloc that it was started with itself."""
    if _VARIABLE in os.environ and os.environ[_VARIABLE] == tcmalloc():
        del os.environ[_VARIABLE]


def is_tcmalloc() -> bool:
    """Whether this process runs on tcmalloc."""
    return hasattr(ctypes.CDLL(None), _RELEASE)


def return_memory() -> None:
    """Return what tcmalloc keeps of freed memory to the system; glibc has done so by itself."""
    if is_tcmalloc():
        getattr(ctypes.CDLL(None), _RELEASE)()
