"""TensorBoard callback: event files in the folder of the sweep, one TensorBoard run per run."""

from collections.abc import Mapping
from typing import Any

from dg_batchformer.callbacks.base import Callback, RunInfo, measurements
from dg_batchformer.storage.folders import State


class TensorBoard(Callback):
    """Writes ``ROOT/tensorboard/ROW/DATASET_ENVIRONMENT/TRIAL-ID``, for ``tensorboard --logdir ROOT``."""

    def begin(self, run: RunInfo) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = run.root.joinpath("tensorboard", *run.group, f"{run.trial}-{run.id[:8]}")
        # Discard points of earlier starts from this step on, which is trained again.
        self.writer = SummaryWriter(str(folder), purge_step=run.start)
        if not run.start:
            lines = "\n".join(f"    {name}: {value}" for name, value in run.config.items())
            self.writer.add_text("config", lines, 0)

    def record(self, values: Mapping[str, Any]) -> None:
        for name, value in measurements(values).items():
            self.writer.add_scalar(name, value, values["step"])
        self.writer.flush()  # before the checkpoint: after it, this record is not written again

    def end(self, state: State) -> None:
        self.writer.close()
