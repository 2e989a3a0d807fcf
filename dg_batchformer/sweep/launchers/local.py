"""The local launcher: warm worker processes on this machine, one per device slot, each training run after run."""

import json
import os
import selectors
import signal
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol

from dg_batchformer.declaration import SweepRun
from dg_batchformer.store import State, SweepFolder

_MAX_DEATHS = 3
_PATIENCE = 0.2  # seconds until a signal is seen at the latest


class Report(Protocol):
    """Who follows a launch."""

    def begin(self, run: SweepRun, start: int) -> None:
        """A run begins, or goes on, at a step."""

    def progress(self, run: SweepRun, done: int) -> None:
        """A run has done so many updates."""

    def ended(self, run: SweepRun, how: str, sentence: str) -> None:
        """A run ended: done, diverged, failed, interrupted, or busy elsewhere."""

    def note(self, run: SweepRun, sentence: str) -> None:
        """Something a person should know."""


def task(folder: SweepFolder, run: SweepRun, data_dir: Path | None) -> dict[str, Any]:
    """Return what a worker is told of a run, see ``training.worker``."""
    return {
        "spec": run.spec.as_dict(),
        "folder": str(folder.run(run.spec.id).path),
        "data_dir": None if data_dir is None else str(data_dir),
        "keep": "none",
    }


class _Worker:
    """One worker process and the run it has in hand."""

    def __init__(self, device: str, threads: int, errors: IO[bytes]) -> None:
        self.device, self.threads = device, threads
        self.run: SweepRun | None = None
        self.told: signal.Signals | None = None  # the last signal sent to it
        self.buffer = b""
        command = [
            sys.executable,
            "-m",
            "dg_batchformer.training.worker",
            "--device",
            device,
            "--threads",
            str(threads),
        ]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )

    def give(self, run: SweepRun, folder: SweepFolder, data_dir: Path | None) -> None:
        """Hand over a run."""
        self.run = run
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # a dead worker is found by the end of its output
            self.process.stdin.write((json.dumps(task(folder, run, data_dir)) + "\n").encode())
            self.process.stdin.flush()

    def tell(self, number: signal.Signals) -> None:
        """Send a signal, once."""
        if self.told != number:
            self.told = number
            self.process.send_signal(number)

    def dismiss(self) -> None:
        """Let the worker end when its run is over."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()

    def events(self) -> list[dict[str, Any]] | None:
        """Read what the worker has told; None when its output has ended."""
        assert self.process.stdout is not None
        chunk = os.read(self.process.stdout.fileno(), 65536)
        if not chunk:
            return None
        *lines, self.buffer = (self.buffer + chunk).split(b"\n")
        return [json.loads(line) for line in lines]


class LocalLauncher:
    """Trains runs on local devices.

    Args:
        devices: one worker each, such as ``["cpu", "cpu"]`` or ``["cuda:0", "cuda:1"]``; workers share the cores.

    """

    def __init__(self, folder: SweepFolder, devices: Sequence[str], data_dir: Path | None, report: Report) -> None:
        self.folder, self.devices, self.data_dir, self.report = folder, devices, data_dir, report
        self.deaths: Counter[str] = Counter()  # of workers, by the run they had in hand
        self.queue: deque[SweepRun] = deque()
        self.selector = selectors.DefaultSelector()
        self.interrupts = 0  # signals that asked to stop

    def launch(self, runs: Sequence[SweepRun]) -> bool:
        """Train the runs; return false where that was interrupted. A failing run stops no other.

        After SIGINT or SIGTERM every worker saves its run and ends; a second signal kills those that hang.
        """
        self.queue.extend(runs)
        handlers = {number: signal.signal(number, self._interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        threads = max(1, len(os.sched_getaffinity(0)) // len(self.devices))
        self.folder.path.mkdir(parents=True, exist_ok=True)
        try:
            with (self.folder.path / "workers.log").open("ab") as self.errors:
                for device in self.devices[: len(self.queue)]:
                    self._start(device, threads)
                while self.selector.get_map():
                    if self.interrupts:
                        self._stop()
                    for key, _ in self.selector.select(timeout=_PATIENCE):
                        self._hear(key.data)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return not self.interrupts

    def _interrupt(self, number: int, frame: Any) -> None:
        self.interrupts += 1  # and no more: a signal comes between any two lines of the loop

    def _stop(self) -> None:
        self.queue.clear()
        for key in self.selector.get_map().values():
            key.data.tell(signal.SIGTERM if self.interrupts == 1 else signal.SIGKILL)

    def _start(self, device: str, threads: int) -> None:
        worker = _Worker(device, threads, self.errors)
        assert worker.process.stdout is not None
        self.selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
        self._assign(worker)

    def _assign(self, worker: _Worker) -> None:
        worker.run = None
        if self.queue:
            worker.give(self.queue.popleft(), self.folder, self.data_dir)
        else:
            worker.dismiss()

    def _hear(self, worker: _Worker) -> None:
        events = worker.events()
        if events is None:
            self._bury(worker)
            return
        for event in events:
            kind, run = event["event"], worker.run
            if run is None or kind == "ready":
                continue
            if kind == "begin":
                self.report.begin(run, event["start"])
            elif kind == "step":
                self.report.progress(run, event["done"])
            elif kind == "note":
                self.report.note(run, event["sentence"])
            else:
                self.report.ended(run, event.get("state", kind), event.get("sentence", ""))
                self._assign(worker)

    def _bury(self, worker: _Worker) -> None:
        """Take leave of a worker whose output ended; replace it if it died with work left."""
        assert worker.process.stdout is not None
        self.selector.unregister(worker.process.stdout)
        worker.process.stdout.close()
        code = worker.process.wait()
        worker.dismiss()
        if worker.run is not None and self.interrupts:
            self.report.ended(worker.run, "interrupted", "")
        elif worker.run is not None:
            self._blame(worker.run, code)
        if self.queue:
            self._start(worker.device, worker.threads)

    def _blame(self, run: SweepRun, code: int) -> None:
        """Try a run again whose worker died; after several deaths record it as failed."""
        folder = self.folder.run(run.spec.id)
        state = folder.state()
        if state.is_final:
            self.report.ended(run, state, "")
            return
        self.deaths[run.spec.id] += 1
        cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"
        if self.deaths[run.spec.id] < _MAX_DEATHS:
            self.report.note(run, f"its worker process ended with {cause}; the run goes on in another")
            self.queue.append(run)
            return
        advice = ", perhaps for lack of memory: use fewer --devices" if code == -signal.SIGKILL else ""
        sentence = (
            f"{_MAX_DEATHS} worker processes ended over it, the last with {cause}{advice}; "
            f"see {self.folder.path / 'workers.log'}"
        )
        folder.fail(sentence)
        self.report.ended(run, State.FAILED, sentence)
