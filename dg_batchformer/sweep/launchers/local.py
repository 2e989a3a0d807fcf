"""The local launcher: warm worker processes on this machine, one per device, which train one task after another."""

import signal
import time
from collections import Counter, deque
from collections.abc import Sequence
from itertools import chain
from multiprocessing.connection import wait
from typing import Any, NamedTuple

from dg_batchformer.runtime.parallel import usable_cores
from dg_batchformer.spec.manifest import SweepRun
from dg_batchformer.spec.options import Assignment, RunOptions, Task
from dg_batchformer.spec.trajectories import Trajectory, trajectories
from dg_batchformer.storage.folders import RunFolder, State, SweepFolder
from dg_batchformer.storage.safe_read import TABLE, read_bytes
from dg_batchformer.sweep.launchers.admission import Admission
from dg_batchformer.sweep.launchers.base import Launcher, Report
from dg_batchformer.sweep.launchers.process import WorkerProcess

_MAX_DEATHS = 3  # worker deaths during a run without progress in between
_PATIENCE = 0.2  # maximal delay in seconds until a signal is handled
_LOOK_AGAIN = 5.0  # seconds between memory checks for idle workers


def share_of_cores(devices: Sequence[str]) -> int:
    """Return the number of CPU threads per worker."""
    return max(1, usable_cores() // len(devices))


class Retry(NamedTuple):
    """A run that was out of memory, to be trained again without others.

    Args:
        run: it.
        device: where it was trained, and will be.
        of_host: whether the memory of the host was short, so that no other worker may exist; else none on the device.

    """

    run: SweepRun
    device: str
    of_host: bool


class LocalLauncher(Launcher):
    """Trains runs on local devices, with one worker for each."""

    def __init__(
        self,
        folder: SweepFolder,
        devices: Sequence[str],
        options: RunOptions,
        report: Report,
        *,
        threads: int | None = None,
        share: bool = True,
    ) -> None:
        super().__init__(folder, devices, options, report, share=share)
        self.threads: int = threads or share_of_cores(devices)
        self.deaths: Counter[tuple[Any, ...]] = Counter()  # by run and progress
        self.began: dict[str, int] = {}  # first step of the last start, by run
        self.queue: deque[Trajectory] = deque()
        self.retries: dict[str, Retry] = {}  # by run, in order; also of those that train again
        self.alone: deque[str] = deque()  # runs that wait for their retry
        self.slots = list(devices)  # usable devices
        self.unusable: list[str] = []  # errors of other devices
        self.looked = time.monotonic()
        self.workers: list[WorkerProcess] = []
        self.admission = Admission()
        self.interrupts = 0  # number of stop signals

    def launch(self, runs: Sequence[SweepRun]) -> bool:
        """Train the runs; return false if interrupted. A failing run does not stop the others.

        After SIGINT, SIGTERM or (without ``nohup``) SIGHUP, every worker saves its runs and exits; a second Ctrl-C
        kills workers that hang.
        """
        self.queue.extend(trajectories(runs, share=self.share))
        stopping = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it
            stopping.append(signal.SIGHUP)
        handlers = {number: signal.signal(number, self._interrupt) for number in stopping}
        self.folder.path.mkdir(parents=True, exist_ok=True)
        try:
            for device in self.devices[: len(self.queue)]:
                self._start(device)
            while self.workers:
                self._turn()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return not self.interrupts

    def stop(self, seconds: float) -> None:
        """Let all workers save their runs and exit within ``seconds``; for signal handlers that then exit."""
        for worker in self.workers:
            worker.send_signal(signal.SIGTERM)
        end = time.monotonic() + seconds
        for worker in self.workers:
            worker.end_within(max(0.0, end - time.monotonic()))

    def _interrupt(self, number: int, frame: Any) -> None:
        # Only set a flag, as signals arrive at any point of the loop. Only a second Ctrl-C kills.
        if number == signal.SIGINT or not self.interrupts:
            self.interrupts += 1

    def _turn(self) -> None:
        """Forward stop signals, then handle the events of workers."""
        if self.interrupts:
            self.queue.clear()
            self.alone.clear()
            for worker in self.workers:
                worker.send_signal(signal.SIGTERM if self.interrupts == 1 else signal.SIGKILL)
        by_channel = {worker.channel: worker for worker in self.workers}
        for channel in wait(list(by_channel), timeout=_PATIENCE):
            self._hear(by_channel[channel])  # type: ignore[index]  # only channels are waited for
        if time.monotonic() - self.looked > _LOOK_AGAIN:
            self.looked = time.monotonic()
            self._give_work()

    def _start(self, device: str) -> None:
        sharing, workers = self.slots.count(device), len(self.slots)
        worker = WorkerProcess(device, self.threads, self.folder.workers_log, sharing, workers)
        self.workers.append(worker)
        self._assign(worker)

    def _assign(self, worker: WorkerProcess) -> None:
        """Give a worker its next task, let it idle if memory is short, or dismiss it if no runs are left.

        A run that was out of memory waits for a new worker without any other beside it, as idle ones hold memory too.
        """
        train = [other for other in self.workers if other.is_busy]
        if self.queue and not (train and self.admission.is_short(worker, train)):
            worker.runs = [*self.queue.popleft()]
        elif self.queue:
            return
        elif not worker.num_tasks and (retry := self._next_retry(worker.device, besides=worker)):
            self.alone.remove(retry.run.spec.id)
            worker.runs = [retry.run]
        if not worker.runs:
            worker.give(None)
        else:
            runs = [
                Assignment(run.spec, self.folder.run(run.spec.id).path, run.label, run.bracket) for run in worker.runs
            ]
            worker.give(Task(tuple(runs), self.options))

    def _next_retry(self, device: str, besides: WorkerProcess | None = None) -> Retry | None:
        """Return a run to train again without others on a device, if there are none besides a worker.

        A run whose device is lost takes any.
        """
        others = [worker for worker in self.workers if worker is not besides]
        on_device = [worker for worker in others if worker.device == device]
        for retry in map(self.retries.__getitem__, self.alone):
            if (retry.device == device or retry.device not in self.slots) and not (
                others if retry.of_host else on_device
            ):
                return retry
        return None

    def _requeue(self, runs: Sequence[SweepRun], *, first: bool = False) -> None:
        """Queue the rest of a task again; runs that were out of memory stay alone."""
        if self.interrupts:
            for run in runs:
                self.report.ended(run, "interrupted", "")
            return
        self.alone.extend(run.spec.id for run in runs if run.spec.id in self.retries)
        if left := tuple(run for run in runs if run.spec.id not in self.retries):
            (self.queue.appendleft if first else self.queue.append)(left)

    def _hear(self, worker: WorkerProcess) -> None:
        told = worker.event()
        if told is None:
            self._bury(worker)
            return
        self.admission.hear(worker, told)
        kind = told["event"]
        run = next((run for run in worker.runs if run.spec.id == told.get("run")), None)
        if kind in ("free", "unusable"):
            self._free(worker, told)
            self._give_work()
        elif run is None:
            return
        elif kind == "begin":
            self.began[run.spec.id] = told["start"]
            self.report.begin(run, told["start"])
        elif kind == "step":
            self.report.progress(run, told["done"])
        elif kind == "note":
            self.report.note(run, told["sentence"])
        else:
            self._end(worker, run, told)

    def _give_work(self) -> None:
        for worker in self.workers:
            if not (worker.is_busy or worker.leaves):
                self._assign(worker)

    def _free(self, worker: WorkerProcess, told: dict[str, Any]) -> None:
        """Handle the end of a task, or of a worker that cannot use its device."""
        worker.is_busy, worker.leaves = False, worker.leaves or told.get("leaves", False)
        if told["event"] == "unusable":
            worker.leaves, worker.is_usable = True, False
            self.slots.remove(worker.device)
            self.unusable.append(told["sentence"])
        self._requeue(worker.runs, first=True)
        self._requeue(worker.faulted)
        worker.runs, worker.faulted = [], []

    def _end(self, worker: WorkerProcess, run: SweepRun, told: dict[str, Any]) -> None:
        """Handle the end of a run; one that is interrupted with its worker stays in the task."""
        how, sentence = told.get("state", told["event"]), told.get("sentence", "")
        full, before = told.get("out_of_memory"), self.retries.get(run.spec.id)
        may_retry = before is None or (full == "cpu" and not before.of_host)
        if how == "interrupted" and not self.interrupts:
            worker.leaves = True
            self.report.note(run, "its worker process was asked to stop; the run resumes in another one")
            return
        worker.runs.remove(run)
        if how == "fault":
            worker.faulted += self._blame([run], f"as {sentence}")
        elif full and may_retry and self._had_company(worker, of_host=full == "cpu"):
            self.retries[run.spec.id] = Retry(run, worker.device, full == "cpu")
            self.folder.run(run.spec.id).error_file.unlink(missing_ok=True)  # not a failure yet
            self.report.note(run, f"{sentence}; the run is retried alone at the end")
            self._requeue([run])
        else:
            if told["event"] == "end":
                self.folder.log_end(run.spec.id)
            self.report.ended(run, how, sentence)

    def _had_company(self, worker: WorkerProcess, *, of_host: bool) -> bool:
        """Return whether others, or earlier tasks of a worker, can have taken memory that its run needed."""
        others = [*worker.left, *(other.device for other in self.workers if other is not worker)]
        return worker.shares or worker.num_tasks > 1 or any(of_host or device == worker.device for device in others)

    def _bury(self, worker: WorkerProcess) -> None:
        """Reap an exited worker; replace it if there is work left."""
        self.workers.remove(worker)
        again, code = worker.faulted, worker.bury()
        for other in self.workers:
            other.left.add(worker.device)
        if self.interrupts:
            again = [*again, *worker.runs]
        elif worker.runs:
            cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"
            advice = ", perhaps out of memory: use fewer --devices" if code == -signal.SIGKILL else ""
            again = [*again, *self._blame(worker.runs, f"with {cause}", advice)]
        self._requeue(again)
        if not (self.workers or self.slots):
            self._give_up_without_devices()
        elif worker.is_usable and (self.queue or self._next_retry(worker.device)):
            self._start(worker.device)
        elif (self.queue or self.alone) and not self.workers:
            self._start(next((slot for slot in self.slots if self._next_retry(slot)), self.slots[0]))
        self._give_work()

    def _give_up_without_devices(self) -> None:
        for run in chain(*self.queue, (self.retries[run_id].run for run_id in self.alone)):
            self.report.ended(run, "stopped", "; ".join(dict.fromkeys(self.unusable)))
        self.queue.clear()
        self.alone.clear()

    def _blame(self, runs: Sequence[SweepRun], ended: str, advice: str = "") -> list[SweepRun]:
        """Return the runs to retry after their worker died; mark those as failed that keep it from making progress.

        Args:
            runs: of the worker.
            ended: how the worker ended, such as "with signal SIGKILL".
            advice: for the error message.

        """
        again = []
        for run in runs:
            folder = self.folder.run(run.spec.id)
            state = run.state(folder)
            if state.has_ended:
                self.folder.log_end(run.spec.id)
                self.report.ended(run, state, "")
            elif self._may_retry(run, folder):
                self.report.note(run, f"its worker process ended {ended}; the run resumes in another one")
                again.append(run)
            else:
                died = f"{_MAX_DEATHS} worker processes died during this run, the last {ended}{advice}"
                sentence = f"{died}; see {self.folder.workers_log}"
                folder.fail(sentence)
                self.report.ended(run, State.FAILED, sentence)
        return again

    def _may_retry(self, run: SweepRun, folder: RunFolder) -> bool:
        """Count a death of a run's worker; return whether there were few without progress in between."""
        records = read_bytes(folder.records_file, TABLE).count(b"\n") if folder.records_file.exists() else 0
        progress = run.spec.id, self.began.get(run.spec.id), records
        self.deaths[progress] += 1
        return self.deaths[progress] < _MAX_DEATHS
