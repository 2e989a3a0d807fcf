"""The callback interface: four methods that a run calls while it trains."""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dg_batchformer.storage.folders import RunFolder, State, SweepFolder
from dg_batchformer.storage.records import read_lines
from dg_batchformer.storage.safe_read import TABLE, read_bytes

_UNMEASURED = ("step", "format", "threads", "final")  # numbers of a record that are no measurements


@dataclass(frozen=True)
class RunInfo:
    """What callbacks know of a run when it begins or resumes.

    Args:
        id: of the run, unique for everything asked of it.
        row: its row in tables, by default the algorithm.
        dataset: name of the dataset. test_envs: names of the environments tested on, joined by "+".
        trial_seed, hparams_seed: repetition, and draw of hyper-parameters.
        steps: number of updates. start: the first update of this start, above 0 for a run that resumes.
        config: everything asked, hyper-parameters as used among it.
        folder: of the run.

    """

    id: str
    row: str
    dataset: str
    test_envs: str
    trial_seed: int
    hparams_seed: int
    steps: int
    start: int
    config: Mapping[str, Any]
    folder: Path

    @property
    def sweep(self) -> str:
        """The name of the sweep; "train" for a run of its own."""
        return self.root.name if self._in_sweep else "train"

    @property
    def root(self) -> Path:
        """The folder of the sweep, or of a run of its own."""
        return self.folder.parents[1] if self._in_sweep else self.folder

    @property
    def _in_sweep(self) -> bool:
        folder = self.folder.absolute()
        return len(folder.parents) > 1 and SweepFolder(folder.parents[1]).sweep_file.exists()

    @property
    def trial(self) -> str:
        """The repetition, and the draw where there is one: ``trial0_draw3``."""
        return f"trial{self.trial_seed}" + (f"_draw{self.hparams_seed}" if self.hparams_seed else "")

    @property
    def group(self) -> tuple[str, str]:
        """The row and the test environments as parts of a path."""
        return _path_part(self.row), _path_part(f"{self.dataset}_{self.test_envs}")

    def history(self) -> Iterator[dict[str, Any]]:
        """Yield the records of earlier starts, in the order in which they were written."""
        with suppress(OSError):
            records, *_ = read_lines(read_bytes(RunFolder(self.folder).records_file, TABLE))
            yield from (record for record in records if record["step"] < self.start)


class Callback:
    """Follows a run; override what you need.

    A callback is created once for every run, and may be told to begin again where a run starts over in the same
    process. What it raises ends the callback with a note, never the run.
    """

    def begin(self, run: RunInfo) -> None:
        """Called before the first update of a start."""

    def step(self, step: int) -> None:
        """Called after every update, with its index from 0."""

    def record(self, values: Mapping[str, Any]) -> None:
        """Called after every evaluation, with its record: ``step``, ``env0_in_acc`` ..., see ``measurements``."""

    def end(self, state: State) -> None:
        """Called once when the run ends: done, diverged, interrupted or failed."""


def measurements(values: Mapping[str, Any]) -> dict[str, float]:
    """Return what a record measured, by its key; accuracies are fractions."""
    numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
    return {name: float(value) for name, value in numbers.items() if name not in _UNMEASURED}


def _path_part(text: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", text).lstrip(".-") or "row"
