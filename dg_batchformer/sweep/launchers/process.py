"""A worker process of the local launcher, forked from a warm server."""

import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

from dg_batchformer.runtime.allocator import preloaded
from dg_batchformer.runtime.memory import Footprint
from dg_batchformer.spec.manifest import SweepRun
from dg_batchformer.spec.options import Task

_WORKER = "dg_batchformer.training.worker"
_SERVER = "dg_batchformer.sweep.launchers.server"


def _work(channel: Connection, device: str, threads: int, log: Path, sharing: int, workers: int) -> None:
    """Run the worker loop in the forked process, where the module is already imported."""
    importlib.import_module(_WORKER).serve(channel, device, threads, log, sharing, workers)


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide the main module: a new process would import it, and a script that calls ``dg.sweep`` would call it again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


class WorkerProcess:
    """A worker process, and the runs of its current task.

    Args:
        device: name of the device.
        threads: number of CPU threads.
        log: file for its standard output and error.
        sharing: number of workers on the same device, including this one.
        workers: number of workers on this machine, including this one.

    """

    def __init__(self, device: str, threads: int, log: Path, sharing: int = 1, workers: int = 1) -> None:
        self.device, self.threads = device, threads
        self.is_busy = False  # whether it has a task
        self.runs: list[SweepRun] = []  # of its task, as far as they have not ended
        self.faulted: list[SweepRun] = []  # of its task, to be resumed by another worker as the device failed
        self.shares = False  # whether its task began with several runs
        self.told: signal.Signals | None = None  # last signal sent
        self.leaves = False  # whether it is about to exit: dismissed, stopped by a signal, or without its device
        self.is_usable = True  # whether its device works
        self.num_tasks = 0  # that it has been given
        self.left: set[str] = set()  # devices of workers that exited during its task
        self.footprint = Footprint()
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([_SERVER, _WORKER])
        self.channel, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, device, threads, log, sharing, workers))
        with _without_main(), preloaded():  # if this starts the server, it and all workers use tcmalloc
            self.process.start()
        theirs.close()

    def give(self, task: Task | None) -> None:
        """Send a task, or None to dismiss the worker."""
        self.leaves, self.is_busy = task is None, task is not None
        self.num_tasks += task is not None
        self.left.clear()
        self.footprint.begin()
        self.shares = task is not None and len(task.runs) > 1
        with suppress(OSError):  # a dead worker is detected by its closed channel
            self.channel.send(task)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it was the last one sent."""
        if self.told != number and self.process.pid is not None:
            self.told = number
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    def event(self) -> dict[str, Any] | None:
        """Receive an event; None if the worker has exited."""
        try:
            return self.channel.recv()
        except (EOFError, OSError):
            return None

    def end_within(self, seconds: float) -> None:
        """Wait for the process to exit; kill it after ``seconds``."""
        self.process.join(seconds)
        if self.process.is_alive():
            self.send_signal(signal.SIGKILL)
            self.process.join()

    def bury(self) -> int:
        """Wait for the process to exit; return its exit code, negative for a signal."""
        self.channel.close()
        self.process.join()
        code = self.process.exitcode
        self.process.close()
        return 0 if code is None else code
