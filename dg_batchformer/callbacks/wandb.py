"""W&B callback: a project per sweep, a group per row, and the test environments as job type."""

import re
import shutil
from collections.abc import Mapping
from typing import Any

from dg_batchformer.callbacks.base import Callback, RunInfo, measurements
from dg_batchformer.storage.folders import State


class WandB(Callback):
    """Logs a run under its id, so that a resumed run continues it; ``WANDB_MODE=offline`` keeps it on disk."""

    def begin(self, run: RunInfo) -> None:
        import wandb

        offline = wandb.setup().settings.mode in ("offline", "dryrun")
        if offline:  # offline runs cannot be continued, so write it again from the records of earlier starts
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
        self.known = self.run.step if not offline else 0  # earlier steps are logged already
        for values in run.history() if offline else ():
            self.record(values)

    def record(self, values: Mapping[str, Any]) -> None:
        if values["step"] >= self.known:
            self.run.log(measurements(values), step=values["step"])

    def end(self, state: State) -> None:
        self.run.finish(exit_code=0 if state.has_ended else 1)
