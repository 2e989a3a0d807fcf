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

from dg_batchformer.store import State, SweepFolder
from dg_batchformer.sweep.expand import SweepRun

_MAX_DEATHS = 3


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


class _Worker:
    """One worker process and the run it has in hand."""

    def __init__(self, device: str, threads: int, errors: IO[bytes]) -> None:
        self.device, self.threads = device, threads
        self.run: SweepRun | None = None
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
        task = {
            "spec": run.spec.as_dict(),
            "folder": str(folder.run(run.spec.id).path),
            "data_dir": None if data_dir is None else str(data_dir),
            "keep": "none",
        }
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # a dead worker is found by the end of its output
            self.process.stdin.write((json.dumps(task) + "\n").encode())
            self.process.stdin.flush()

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
        self.endings: Counter[str] = Counter()
        self.deaths: Counter[str] = Counter()  # of workers, by the run they had in hand
        self.queue: deque[SweepRun] = deque()
        self.selector = selectors.DefaultSelector()
        self.interrupted = False

    def launch(self, runs: Sequence[SweepRun]) -> Counter[str]:
        """Train the runs; return how many ended in which way. A failing run stops no other.

        After SIGINT or SIGTERM every worker saves its run and ends; ``interrupted`` is then true.
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
                    for key, _ in self.selector.select(timeout=1):
                        self._hear(key.data)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return self.endings

    def _workers(self) -> list[_Worker]:
        return [key.data for key in self.selector.get_map().values()]

    def _interrupt(self, number: int, frame: Any) -> None:
        again, self.interrupted = self.interrupted, True
        self.queue.clear()
        for worker in self._workers():
            worker.process.send_signal(signal.SIGKILL if again else signal.SIGTERM)

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
                self._end(run, event.get("state", kind), event.get("sentence", ""))
                self._assign(worker)

    def _end(self, run: SweepRun, how: str, sentence: str) -> None:
        self.endings[how] += 1
        self.report.ended(run, how, sentence)

    def _bury(self, worker: _Worker) -> None:
        """Take leave of a worker whose output ended; replace it if it died with work left."""
        assert worker.process.stdout is not None
        self.selector.unregister(worker.process.stdout)
        worker.process.stdout.close()
        code = worker.process.wait()
        worker.dismiss()
        if worker.run is not None and self.interrupted:
            self._end(worker.run, "interrupted", "")
        elif worker.run is not None:
            self._blame(worker.run, code)
        if self.queue:
            self._start(worker.device, worker.threads)

    def _blame(self, run: SweepRun, code: int) -> None:
        """Try a run again whose worker died; after several deaths record it as failed."""
        folder = self.folder.run(run.spec.id)
        if folder.state().is_final:
            self._end(run, State.DONE, "")
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
        self._end(run, State.FAILED, sentence)
