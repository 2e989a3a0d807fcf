"""The precision of kept models: that of their runs, if the device supports it."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from dg_batchformer.models.load import KeptModel
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.storage.folders import RunFolder
from dg_batchformer.storage.records import read_lines
from dg_batchformer.storage.safe_read import TABLE, read_bytes
from dg_batchformer.training.compute_mode import SETTLED_PRECISIONS, has_bf16, set_precision
from dg_batchformer.training.device import has_tf32


class Precision(NamedTuple):
    """The precision that a kept model uses, and those that its runs recorded."""

    used: str
    recorded: tuple[str, ...]

    @property
    def deviation(self) -> str:
        """How it differs from the runs, '' if it does not."""
        if self.recorded == (self.used,):
            return ""
        return f"computed in {self.used}, but trained and evaluated in {' and '.join(self.recorded)}"


def compute_as_runs(model: KeptModel, folders: Sequence[RunFolder], device: torch.device) -> Precision:
    """Set a model to the precision of its runs, or to fp32 if they differ or the device lacks it.

    As in training, bf16 requested by name is used on every device, TF32 only on those that have it.
    """
    recorded = tuple(sorted({_recorded(folder, model.spec) for folder in folders}))
    lacks_bf16 = model.spec.precision == "auto" and not has_bf16(device)
    lacking = lacks_bf16 if recorded == ("bf16",) else recorded == ("tf32",) and not has_tf32(device)
    used = "fp32" if len(recorded) > 1 or lacking else recorded[0]
    set_precision(model.algorithm, used)
    return Precision(used, recorded)


def _recorded(folder: RunFolder, spec: RunSpec) -> str:
    """Return the precision in the last record of a run, or the requested one if there is none."""
    content = read_bytes(folder.records_file, TABLE) if folder.records_file.exists() else b""
    records, _, _ = read_lines(content)
    asked = "fp32" if spec.precision == "auto" else spec.precision
    recorded = records[-1].get("precision") if records else None
    return recorded if recorded in SETTLED_PRECISIONS else asked
