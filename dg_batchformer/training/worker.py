"""A warm worker process: trains the runs that its launcher sends, and reports events to it.

``sweep.launchers.local`` forks it from a server that has imported this module.
"""

import gc
import os
import time
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
from dg_batchformer.storage.lock import Busy
from dg_batchformer.storage.safe_write import open_own
from dg_batchformer.text.terminal import outlive_readers, prepare_streams
from dg_batchformer.training.device import parse_device, prepare_device
from dg_batchformer.training.faults import DeviceFault, OutOfMemory
from dg_batchformer.training.lines import accuracies
from dg_batchformer.training.run import train_run
from dg_batchformer.training.run_log import Watcher, storage_error
from dg_batchformer.training.stop import Interrupted, StopOnSignal

_EVENT_SECONDS = 0.5  # interval of progress events


class Events(Watcher):
    """The watcher of every run, which sends events to the launcher; stops the worker if the launcher has exited."""

    def __init__(self, channel: Connection, stop: StopOnSignal) -> None:
        self.channel, self.stop = channel, stop
        self.told = 0.0
        self.memory = 0
        self.device: torch.device | None = None

    def send(self, event: str, **values: Any) -> None:
        """Send an event, with the peak memory of this process in bytes, and the memory of its GPU."""
        self.told = time.monotonic()
        self.memory = max(self.memory, _own_memory())
        try:
            self.channel.send({"event": event, "memory": self.memory, "card": _card_memory(self.device), **values})
        except OSError:
            self.stop.asked = True

    def begin(self, run: RunInfo) -> None:
        self.send("begin", start=run.start)

    def step(self, step: int) -> None:
        if time.monotonic() - self.told >= _EVENT_SECONDS:
            self.send("step", done=step + 1)

    def note(self, sentence: str) -> None:
        self.send("note", sentence=sentence)


def serve(channel: Connection, device_name: str, threads: int, log: Path, sharing: int = 1) -> None:
    """Train the tasks received on a channel, until None arrives, the launcher exits, or a signal asks to stop.

    Args:
        channel: receives ``Task`` objects, and sends events.
        device_name: of the device.
        threads: number of CPU threads.
        log: file for standard output and error.
        sharing: number of workers on the same device, including this one.

    """
    stop = StopOnSignal()
    with open_own(log, "ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    prepare_streams()
    outlive_readers()
    events, device = Events(channel, stop), None
    RESIDENCE.workers = sharing
    while (task := _next_task(channel, stop)) is not None:
        torch.set_num_threads(threads)
        try:
            device = device or parse_device(device_name)  # only once, as it may hide other devices
            prepare_device(device)
        except Exception as error:  # not an error of the run
            events.send("unusable", sentence=as_sentence(error))
            return
        events.device = device
        how, told = train_task(task, device, events, stop)
        leaves = not _give_back_memory(device) or how == "fault"
        events.send(how, leaves=leaves, **told)
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


def train_task(task: Task, device: torch.device, events: Events, stop: StopOnSignal) -> tuple[str, dict[str, Any]]:
    """Train one run; return the name and values of its final event."""
    how, told = "failed", {}
    try:
        folder = RunFolder(task.folder)
        state = train_run(
            task.spec,
            folder,
            task.options,
            device=device,
            watcher=events,
            stop=stop,
            row=task.row,
            in_sweep=True,
        )
        found = accuracies(task.spec, folder) if state is State.DONE else ""
        how, told = "end", {"state": state.value, "seconds": folder.outcome().get("seconds"), "sentence": found}
    except Busy as error:
        how, told = "busy", {"sentence": str(error)}
    except Interrupted:
        how = "interrupted"
    except DeviceFault as error:
        how, told = "fault", {"sentence": error.what}
    except Exception as error:
        if storage_error(error) is not None:
            how = "stopped"
        told = {"sentence": as_sentence(error), "out_of_memory": isinstance(error, OutOfMemory)}
    return how, told


def _give_back_memory(device: torch.device) -> bool:
    """Free the memory of a run; return false if the device is lost."""
    gc.collect()
    return_memory()
    if device.type == "cuda":
        try:
            torch.cuda.synchronize(device)
            torch.cuda.empty_cache()
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
