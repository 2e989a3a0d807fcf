"""Launcher for algorithms that only this process has; trains runs one after another on one device."""

from collections.abc import Callable, Sequence
from functools import cached_property

import torch

from dg_batchformer.callbacks.base import RunInfo
from dg_batchformer.spec.manifest import SweepRun
from dg_batchformer.spec.trajectories import Trajectory, trajectories
from dg_batchformer.storage.folders import State
from dg_batchformer.sweep.launchers.base import Launcher, Report
from dg_batchformer.training.device import parse_device, prepare_device
from dg_batchformer.training.follower import RunToTrain
from dg_batchformer.training.lines import ending
from dg_batchformer.training.run import train_together
from dg_batchformer.training.run_log import Watcher
from dg_batchformer.training.stop import stopping_on_interrupt


class InProcessLauncher(Launcher):
    """Trains runs in this process on the first of the given devices."""

    @cached_property
    def device(self) -> torch.device:
        """The device."""
        return parse_device(self.devices[0])

    def launch(self, runs: Sequence[SweepRun]) -> bool:
        """Train the runs; return false if interrupted. Other runs continue after one fails."""
        prepare_device(self.device)
        threads_before = torch.get_num_threads()
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        try:
            with stopping_on_interrupt() as stop:
                return all(self._train(trajectory, stop) for trajectory in trajectories(runs, share=self.share))
        finally:
            torch.set_num_threads(threads_before)

    def _train(self, trajectory: Trajectory, stop: Callable[[], bool]) -> bool:
        """Train the runs of a trajectory; return whether to go on with others."""
        asked = [
            RunToTrain(
                run.spec,
                self.folder.run(run.spec.id),
                _Reporter(run, self.report),
                row=run.label,
                bracket=run.bracket,
            )
            for run in trajectory
        ]
        named = {run.spec.id: run for run in trajectory}
        ends: list[str] = []

        def ended(run: RunToTrain, how: State | Exception) -> None:
            name, sentence = ending(run.spec, run.folder, how)
            ends.append(name)
            if isinstance(how, State):
                self.folder.log_end(run.spec.id)
            self.report.ended(named[run.spec.id], name, sentence)

        train_together(asked, self.options, device=self.device, stop=stop, ended=ended)
        return not {"interrupted", "stopped"} & set(ends)


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
