"""Launcher for algorithms that only this process has; trains runs one after another on one device."""

from collections.abc import Callable, Sequence

import torch

from dg_batchformer.callbacks.base import RunInfo
from dg_batchformer.errors import as_sentence
from dg_batchformer.spec.manifest import SweepRun
from dg_batchformer.spec.options import RunOptions
from dg_batchformer.storage.folders import State, SweepFolder
from dg_batchformer.storage.lock import Busy
from dg_batchformer.sweep.launchers.local import Report
from dg_batchformer.training.device import parse_device, prepare_device
from dg_batchformer.training.lines import accuracies
from dg_batchformer.training.run import train_run
from dg_batchformer.training.run_log import StorageTrouble, Watcher
from dg_batchformer.training.stop import Interrupted, stopping_on_interrupt


class InProcessLauncher:
    """Trains runs in this process on the first of the given devices; takes the arguments of ``LocalLauncher``."""

    def __init__(
        self,
        folder: SweepFolder,
        devices: Sequence[str],
        options: RunOptions,
        report: Report,
        *,
        threads: int | None = None,
    ) -> None:
        self.folder, self.device, self.options, self.report = folder, parse_device(devices[0]), options, report
        self.threads = threads

    def launch(self, runs: Sequence[SweepRun]) -> bool:
        """Train the runs; return false if interrupted. Other runs continue after one fails."""
        prepare_device(self.device)
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        with stopping_on_interrupt() as stop:
            for run in runs:
                how, sentence = self._train(run, stop)
                self.report.ended(run, how, sentence)
                if how in ("interrupted", "stopped"):
                    return False
        return True

    def _train(self, run: SweepRun, stop: Callable[[], bool]) -> tuple[str, str]:
        """Train one run; return how it ended, and a sentence about it."""
        folder, watcher = self.folder.run(run.spec.id), _Reporter(run, self.report)
        try:
            state = train_run(
                run.spec,
                folder,
                self.options,
                device=self.device,
                watcher=watcher,
                stop=stop,
                row=run.label,
                in_sweep=True,
            )
        except Interrupted:
            return "interrupted", ""
        except Busy as error:
            return "busy", str(error)
        except StorageTrouble as error:
            return "stopped", str(error)
        except Exception as error:
            return State.FAILED.value, as_sentence(error)
        self.folder.log_final(run.spec.id, state, folder.outcome().get("seconds"))
        return state.value, accuracies(run.spec, folder) if state is State.DONE else ""


class _Reporter(Watcher):
    """Forwards the events of a run to the report of the launch."""

    def __init__(self, run: SweepRun, report: Report) -> None:
        self.run, self.report = run, report

    def begin(self, run: RunInfo) -> None:
        self.report.begin(self.run, run.start)

    def step(self, step: int) -> None:
        self.report.progress(self.run, step + 1)

    def note(self, sentence: str) -> None:
        self.report.note(self.run, sentence)
