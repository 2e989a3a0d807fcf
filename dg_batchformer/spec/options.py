"""RunOptions: how a run is trained beside its spec. No option changes a number, so none is part of a run's id."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dg_batchformer.errors import InputError, unknown
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.storage.folders import KEEP


@dataclass(frozen=True)
class RunOptions:
    """Where the data of a run lies, and what the run saves.

    Raises InputError for an unknown value of ``keep`` or a negative ``save_seconds``.

    Args:
        data_dir: the folder of datasets; None for datasets that need none.
        keep: the weights to keep: ``none``, ``final`` (of the model that the run returns) or ``best``.
        predictions: whether to write what the returned model predicts for every evaluated sample.
        save_seconds: time between two checkpoints, which is the most that a killed run repeats.

    """

    data_dir: Path | None = None
    keep: str = "none"
    predictions: bool = False
    save_seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.keep not in KEEP:
            raise unknown("value of keep:", self.keep, KEEP)
        if self.save_seconds < 0:
            raise InputError(f"save_seconds is {self.save_seconds}, allowed is a number of seconds, at least 0")

    def typed(self) -> dict[str, Any]:
        """Return the options of ``train`` that ask for these, by name."""
        return {"data_dir": self.data_dir, "keep": self.keep, "predictions": self.predictions}


@dataclass(frozen=True)
class Task:
    """One run that a worker process is given to train, in its folder."""

    spec: RunSpec
    folder: Path
    options: RunOptions
