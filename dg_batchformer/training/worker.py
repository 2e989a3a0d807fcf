"""A warm worker: trains one run after another, as its launcher hands them in; events go back as lines of JSON.

``python -m dg_batchformer.training.worker --device cpu --threads 1`` reads tasks from standard input, one JSON object
a line: ``{"spec": {...}, "folder": "...", "data_dir": "..." or null, "keep": "none"}``. It ends with its input.
"""

import argparse
import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

from dg_batchformer.lock import Busy
from dg_batchformer.spec import RunSpec
from dg_batchformer.store import RunFolder
from dg_batchformer.training.device import parse_device, prepare_device
from dg_batchformer.training.journal import failure
from dg_batchformer.training.run import train_run
from dg_batchformer.training.stop import Interrupted, StopOnSignal

_EVENT_SECONDS = 0.5  # between two reports of progress


class Events:
    """Tells the launcher what happens, as the watcher of every run; a launcher that is gone stops the worker."""

    def __init__(self, stop: StopOnSignal) -> None:
        self.stop = stop
        # Only events may reach the launcher: what anybody prints goes to standard error.
        self.stream = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self.told = 0.0

    def tell(self, event: str, **values: Any) -> None:
        """Write one event."""
        self.told = time.monotonic()
        try:
            self.stream.write(json.dumps({"event": event, **values}) + "\n")
            self.stream.flush()
        except BrokenPipeError:
            self.stop.asked = True

    def begin(self, spec: RunSpec, start: int) -> None:
        self.tell("begin", start=start)

    def step(self, step: int) -> None:
        if time.monotonic() - self.told >= _EVENT_SECONDS:
            self.tell("step", done=step + 1)

    def record(self, values: dict[str, Any]) -> None:
        pass

    def note(self, sentence: str) -> None:
        self.tell("note", sentence=sentence)

    def caching(self, done: int, images: int) -> None:
        if done in (1, images):
            self.note(f"{done} of {images} images are in the pixel cache")


def main(arguments: list[str]) -> None:
    """Serve tasks until standard input ends or a signal comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args(arguments)
    stop = StopOnSignal()
    events = Events(stop)
    device = parse_device(options.device)
    prepare_device(device)
    events.tell("ready")
    for line in sys.stdin:
        torch.set_num_threads(options.threads)
        _serve(json.loads(line), device, events, stop)
        if stop.asked:
            return


def _serve(task: dict[str, Any], device: torch.device, events: Events, stop: StopOnSignal) -> None:
    try:
        folder = RunFolder(Path(task["folder"]))
        data_dir = None if task["data_dir"] is None else Path(task["data_dir"])
        spec = RunSpec.from_dict(task["spec"])
        state = train_run(spec, folder, data_dir=data_dir, device=device, keep=task["keep"], watcher=events, stop=stop)
        events.tell("end", state=state.value)
    except Busy as error:
        events.tell("busy", sentence=str(error))
    except Interrupted:
        events.tell("interrupted")
    except Exception as error:
        events.tell("failed", sentence=failure(error))
    gc.collect()  # the next run finds the memory of this one
    if device.type == "cuda":
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main(sys.argv[1:])
