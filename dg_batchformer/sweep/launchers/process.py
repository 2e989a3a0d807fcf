"""One worker process of the local launcher: forked from a warm server, told what to train, heard and ended."""

import importlib
import multiprocessing
import os
import signal
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from dg_batchformer.runtime.allocator import preloaded
from dg_batchformer.spec.manifest import SweepRun
from dg_batchformer.spec.options import Task

_WORKER = "dg_batchformer.training.worker"
_SERVER = "dg_batchformer.sweep.launchers.server"


def _work(channel: Connection, device: str, threads: int, log: Path, sharing: int) -> None:
    """Be a worker: runs in the forked process, where the module is there already."""
    importlib.import_module(_WORKER).serve(channel, device, threads, log, sharing)


class WorkerProcess:
    """One worker process and the run it has in hand.

    Args:
        sharing: workers on the same device, this one included.

    """

    def __init__(self, device: str, threads: int, log: Path, sharing: int = 1) -> None:
        self.device, self.threads = device, threads
        self.run: SweepRun | None = None
        self.told: signal.Signals | None = None  # the last signal sent to it
        self.leaves = False  # was dismissed, asked to stop by somebody, or lost its device
        self.is_usable = True  # whether its device is
        self.held_of_card = 0  # bytes that it holds on its GPU, as last told
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([_SERVER, _WORKER])
        self.channel, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, device, threads, log, sharing))
        with preloaded():  # where this starts the server, it runs on tcmalloc, and so do all workers
            self.process.start()
        theirs.close()

    def give(self, task: Task | None) -> None:
        """Hand over a run, or None to let the worker end."""
        self.leaves = task is None
        with suppress(OSError):  # a dead worker is found by the end of its channel
            self.channel.send(task)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, once."""
        if self.told != number and self.process.pid is not None:
            self.told = number
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    def event(self) -> dict[str, Any] | None:
        """Return what the worker tells; None when it has ended."""
        try:
            return self.channel.recv()
        except (EOFError, OSError):
            return None

    def end_within(self, seconds: float) -> None:
        """Wait for the end of the process, and kill one that hangs."""
        self.process.join(seconds)
        if self.process.is_alive():
            self.send_signal(signal.SIGKILL)
            self.process.join()

    def bury(self) -> int:
        """Wait for the end of the process; return its exit code, negative for a signal."""
        self.channel.close()
        self.process.join()
        code = self.process.exitcode
        self.process.close()
        return 0 if code is None else code
