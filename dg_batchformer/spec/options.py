"""RunOptions: options of a run that do not affect its results, and so are not part of its id."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dg_batchformer.errors import InputError, unknown
from dg_batchformer.spec.race import Bracket
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.storage.folders import KEEP

_SAVING = 0.02  # largest share of the time that goes into checkpoints


@dataclass(frozen=True)
class RunOptions:
    """Where a run finds its data, and what it saves.

    Raises InputError for an unknown value of ``keep`` or a negative ``save_seconds``.

    Args:
        data_dir: folder with the datasets; None for built-in ones.
        keep: which model to keep: ``none``, ``final`` (the one that the run returns) or ``best``.
        predictions: whether to write the predictions of the final model for every evaluated sample.
        log: names of callbacks that follow the run, see ``callbacks.load``.
        save_seconds: interval of checkpoints in seconds, longer if saving would take more than 2 % of the time; what a
            killed run has to repeat. 0 saves after every step.

    """

    data_dir: Path | None = None
    keep: str = "none"
    predictions: bool = False
    log: tuple[str, ...] = ()
    save_seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.keep not in KEEP:
            raise unknown("value of keep:", self.keep, KEEP)
        if self.save_seconds < 0:
            raise InputError(f"save_seconds is {self.save_seconds}, but must be at least 0")

    def save_interval(self, seconds: float) -> float:
        """Return how long to train for ``seconds`` of saving to be affordable; not less than ``save_seconds``."""
        return max(self.save_seconds, seconds / _SAVING) if self.save_seconds else 0.0

    def typed(self) -> dict[str, Any]:
        """Return these as options of ``train``, by name."""
        return {"data_dir": self.data_dir, "keep": self.keep, "predictions": self.predictions, "log": self.log}


class Assignment(NamedTuple):
    """A run with its folder, the name of its row in tables, by which trackers group it, and those it races against."""

    spec: RunSpec
    folder: Path
    row: str = ""
    bracket: Bracket | None = None


@dataclass(frozen=True)
class Task:
    """Runs of one trajectory for a worker process to train, and their options."""

    runs: tuple[Assignment, ...]
    options: RunOptions


def check_threads(threads: object) -> None:
    """Raise InputError unless ``threads``, as given from Python, is None or a whole number of at least 1."""
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise InputError(f"threads is {threads!r}, but must be a whole number, at least 1")
