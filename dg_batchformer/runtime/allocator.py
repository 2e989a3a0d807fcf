"""The memory allocator for training on CPUs: tcmalloc, if it is installed.

glibc returns large freed blocks to the kernel, so every step gets fresh pages that the kernel must clear first. This
takes up to a fifth of a step (``results/speed``). tcmalloc keeps the blocks and needs no more memory. LD_PRELOAD loads
it, so it must be set when a process starts. A value that the user has set, even an empty one, is left alone.
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
_RELEASE = "MallocExtension_ReleaseFreeMemory"  # identifies tcmalloc, and returns free memory to the kernel
_GPUS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # with a GPU, activations are not in host memory


def tcmalloc() -> str | None:
    """Return the path or name of the tcmalloc library; None if it is not installed or the machine has a GPU."""
    if sys.platform != "linux" or any(Path(gpu).exists() for gpu in _GPUS):
        return None
    own = next(Path(sys.prefix, "lib").glob(f"lib{_NAME}.so.?"), None)  # as conda installs it
    return find_library(_NAME) if own is None else str(own)


def start_over() -> None:
    """Restart this process with tcmalloc preloaded; return if that is already so, or not wanted."""
    library = _to_preload()
    if library is None:
        keep_from_children()
        return
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, _VARIABLE: library})


@contextmanager
def preloaded() -> Iterator[None]:
    """Preload tcmalloc in child processes started inside the context."""
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
    """Unset LD_PRELOAD for child processes, if it was set to load tcmalloc here."""
    if _VARIABLE in os.environ and os.environ[_VARIABLE] == tcmalloc():
        del os.environ[_VARIABLE]


def is_tcmalloc() -> bool:
    """Return whether this process uses tcmalloc."""
    return hasattr(ctypes.CDLL(None), _RELEASE)


def return_memory() -> None:
    """Release free memory that tcmalloc holds to the kernel; glibc does so by itself."""
    if is_tcmalloc():
        getattr(ctypes.CDLL(None), _RELEASE)()
