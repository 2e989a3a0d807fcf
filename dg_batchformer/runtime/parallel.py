"""Parallel map over many files, in processes: threads would contend for the GIL."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from dg_batchformer.errors import InputError

_PATIENCE = 2  # seconds that a parent has to stop in order
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_inherited: tuple[Callable[[Any], Any], Sequence[Any]]


def usable_cores() -> int:
    """Return the number of cores that this process may use: all of them where there is no CPU affinity (macOS)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_every_core(
    work: Callable[[_Item], _Result], items: Sequence[_Item], *, at_once: int = 64, few: int = 512
) -> Iterator[_Result]:
    """Yield ``work(item)`` for each item, in order; raise InputError if a process is killed.

    Processes are forked, so ``work`` and ``items`` are inherited, not pickled; they may hold open files.

    Args:
        at_once: number of items in one task of a process.
        few: with fewer items than this, everything runs in this process.

    """
    cores = usable_cores()
    if cores == 1 or len(items) < few:
        yield from map(work, items)
        return
    # Imported only for much work: these imports take longer than a small table.
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    with ProcessPoolExecutor(cores, get_context("fork"), _begin, (work, items, os.getpid())) as pool:
        try:
            yield from pool.map(_work, range(len(items)), chunksize=at_once)
        except BrokenProcessPool:
            raise InputError("a process that reads files was killed, perhaps out of memory; try again") from None


def begin_child(parent: int) -> None:
    """Set up a forked process: its parent handles Ctrl-C, SIGTERM ends it soon, and so does the end of its parent.

    It inherits handlers, and open pipes, whose readers would otherwise wait for it after its parent was killed. A
    SIGTERM for the whole process group reaches the parent too, which gets the time to stop in order.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_soon)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_soon(number: int, frame: object) -> None:
    timer = threading.Timer(_PATIENCE, os._exit, (1,))
    timer.daemon = True
    timer.start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _begin(work: Callable[[Any], Any], items: Sequence[Any], parent: int) -> None:
    global _inherited
    _inherited = work, items
    begin_child(parent)


def _work(index: int) -> Any:
    work, items = _inherited
    return work(items[index])
