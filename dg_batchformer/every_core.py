"""Work on many files in every core: in threads, Python's own part between them would wait for one another."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

from dg_batchformer.errors import InputError

_CHUNK = 64  # items that a process is handed at once
_FEW = 512  # items that are not worth starting processes for

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_inherited: tuple[Callable[[Any], Any], Sequence[Any]]


def in_every_core(work: Callable[[_Item], _Result], items: Sequence[_Item]) -> Iterator[_Result]:
    """Yield what work makes of each item, in their order; raise InputError where a process dies of one.

    Processes are forked, so that work and items, which may hold open files, are inherited and not sent.
    """
    cores = len(os.sched_getaffinity(0))
    if cores == 1 or len(items) < _FEW:
        yield from map(work, items)
        return
    with ProcessPoolExecutor(cores, get_context("fork"), initializer=_begin, initargs=(work, items)) as pool:
        try:
            yield from pool.map(_work, range(len(items)), chunksize=_CHUNK)
        except BrokenProcessPool:
            raise InputError("a process that reads images was killed, perhaps for lack of memory; try again") from None


def _begin(work: Callable[[Any], Any], items: Sequence[Any]) -> None:
    global _inherited
    _inherited = work, items
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer


def _work(index: int) -> Any:
    work, items = _inherited
    return work(items[index])
