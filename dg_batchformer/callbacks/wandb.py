"""W&B: a project for each sweep, a group for each row, and the test environments as the type of job."""

import re
import shutil
from collections.abc import Mapping
from typing import Any

from dg_batchformer.callbacks.base import Callback, RunInfo, measurements
from dg_batchformer.storage.folders import State


class WandB(Callback):
    """Logs a run under its own ID, which a resumed run continues. ``WANDB_MODE=offline`` keeps it on disk."""

    def begin(self, run: RunInfo) -> None:
        import wandb

        offline = wandb.setup().settings.mode in ("offline", "dryrun")
        if offline:  # an offline run cannot be continued: it is written again, with the records of earlier starts
            for earlier in (run.root / "wandb").glob(f"offline-run-*-{run.id}"):
                shutil.rmtree(earlier)
        self.run = wandb.init(
            project=re.sub(r"[/\\#?%:]", "-", run.sweep),
            group=run.row,
            job_type=f"{run.dataset} {run.test_envs}",
            name=f"{run.row} {run.test_envs} {run.trial}",
            id=run.id,
            dir=str(run.root),
            config=dict(run.config),
            resume=None if offline else "allow",
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True),
        )
        self.known = self.run.step if not offline else 0  # steps below are there, from an earlier start
        for values in run.history() if offline else ():
            self.record(values)

    def record(self, values: Mapping[str, Any]) -> None:
        if values["step"] >= self.known:
            self.run.log(measurements(values), step=values["step"])

    def end(self, state: State) -> None:
        self.run.finish(exit_code=0 if state.is_final else 1)
