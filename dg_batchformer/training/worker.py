"""A warm worker process: trains the runs that its launcher sends, and reports events to it.

``sweep.launchers.local`` forks it from a server that has imported this module.
"""

import gc
import os
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from dg_batchformer.callbacks.base import RunInfo
from dg_batchformer.datasets.residence import RESIDENCE
from dg_batchformer.errors import as_sentence
from dg_batchformer.runtime.allocator import return_memory
from dg_batchformer.runtime.memory import CardMemory, told_by_kernel
from dg_batchformer.spec.options import Task
from dg_batchformer.storage.folders import RunFolder, State
from dg_batchformer.storage.safe_write import open_own
from dg_batchformer.text.terminal import outlive_readers, prepare_streams
from dg_batchformer.training.device import parse_device, prepare_device
from dg_batchformer.training.faults import DeviceFault, OutOfMemory
from dg_batchformer.training.follower import RunToTrain
from dg_batchformer.training.lines import ending
from dg_batchformer.training.loaders import SHARED_MEMORY
from dg_batchformer.training.run import train_together
from dg_batchformer.training.run_log import Watcher
from dg_batchformer.training.stop import StopOnSignal

_EVENT_SECONDS = 0.5  # interval of progress events


class Events:
    """Sends events to the launcher; stops the worker if the launcher has exited."""

    def __init__(self, channel: Connection, stop: StopOnSignal) -> None:
        self.channel, self.stop = channel, stop
        self.device: torch.device | None = None

    def send(self, event: str, **values: Any) -> None:
        """Send an event, with the memory that this process holds in bytes, and the memory of its GPU."""
        try:
            self.channel.send({"event": event, "memory": _own_memory(), "card": _card_memory(self.device), **values})
        except OSError:
            self.stop.asked = True


class RunEvents(Watcher):
    """The watcher of a run, which sends its events with the id of the run."""

    def __init__(self, events: Events, run_id: str) -> None:
        self.events, self.run_id = events, run_id
        self.told = 0.0

    def begin(self, run: RunInfo) -> None:
        self._send("begin", start=run.start)

    def step(self, step: int) -> None:
        if time.monotonic() - self.told >= _EVENT_SECONDS:
            self._send("step", done=step + 1)

    def note(self, sentence: str) -> None:
        self._send("note", sentence=sentence)

    def _send(self, event: str, **values: Any) -> None:
        self.told = time.monotonic()
        self.events.send(event, run=self.run_id, **values)


def serve(channel: Connection, device_name: str, threads: int, log: Path, sharing: int = 1, workers: int = 1) -> None:
    """Train the tasks received on a channel, until None arrives, the launcher exits, or a signal asks to stop.

    Args:
        channel: receives ``Task`` objects, and sends events.
        device_name: of the device.
        threads: number of CPU threads.
        log: file for standard output and error.
        sharing: number of workers on the same device, including this one.
        workers: number of workers on this machine, including this one.

    """
    stop = StopOnSignal()
    with open_own(log, "ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    prepare_streams()
    outlive_readers()
    events, device = Events(channel, stop), None
    RESIDENCE.workers, SHARED_MEMORY.workers = sharing, workers
    while (task := _next_task(channel, stop)) is not None:
        torch.set_num_threads(threads)
        try:
            device = device or parse_device(device_name)  # only once, as it may hide other devices
            prepare_device(device)
        except Exception as error:  # not an error of the run
            events.send("unusable", sentence=as_sentence(error))
            return
        events.device = device
        faulted = train_task(task, device, events, stop)
        leaves = not _give_back_memory(device) or faulted
        events.send("free", leaves=leaves)
        if leaves:
            return


def _next_task(channel: Connection, stop: StopOnSignal) -> Task | None:
    """Wait for a task; return None if no more will come."""
    try:
        while not channel.poll(_EVENT_SECONDS):
            if stop.asked:
                return None
        return None if stop.asked else channel.recv()
    except (EOFError, OSError):
        return None


def train_task(task: Task, device: torch.device, events: Events, stop: Callable[[], bool]) -> bool:
    """Train the runs of a task, and send how each of them ended; return whether the device failed."""
    sent: list[str] = []

    def ended(run: RunToTrain, how: State | Exception) -> None:
        name, sentence = ending(run.spec, run.folder, how)
        full = how.device.type if isinstance(how, OutOfMemory) else ""
        event, values = name, {"sentence": sentence, "out_of_memory": full}
        if isinstance(how, State):
            event, values = "end", {"sentence": sentence, "state": name}
        elif isinstance(how, DeviceFault):  # another process can resume the run
            event, values = "fault", {"sentence": how.what}
        sent.append(event)
        events.send(event, run=run.spec.id, **values)

    runs = [
        RunToTrain(run.spec, RunFolder(run.folder), RunEvents(events, run.spec.id), row=run.row, bracket=run.bracket)
        for run in task.runs
    ]
    train_together(runs, task.options, device=device, stop=stop, ended=ended)
    return "fault" in sent


def _give_back_memory(device: torch.device) -> bool:
    """Free the memory of a run; return false if the device is lost."""
    gc.collect()
    return_memory()
    if device.type == "cuda":
        try:
            torch.cuda.synchronize(device)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        except RuntimeError:
            return False
    return True


def _card_memory(device: torch.device | None) -> CardMemory | None:
    """Return the memory of a GPU; None for a CPU, or if it is unknown."""
    if device is not None and device.type == "cuda":
        with suppress(RuntimeError):
            free, _ = torch.cuda.mem_get_info(device)
            return CardMemory(free, torch.cuda.memory_reserved(device), torch.cuda.max_memory_reserved(device))
    return None


def _own_memory() -> int:
    """Return the anonymous memory of this process in bytes, without mapped files such as libraries."""
    return told_by_kernel("/proc/self/status", "RssAnon") or 0
