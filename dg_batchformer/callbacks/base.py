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

_UNMEASURED = ("step", "format", "threads", "final")  # numbers of a record that are not measurements


@dataclass(frozen=True)
class RunInfo:
    """Description of a run that a callback gets when the run begins or resumes.

    Args:
        id: identifier of the run; runs with different settings have different ones.
        row: row of the run in tables, by default the algorithm.
        dataset: name of the dataset.
        test_envs: names of the test environments, joined by "+".
        trial_seed, hparams_seed: numbers of the repetition and of the draw of hyper-parameters.
        steps: number of updates.
        start: first update of this start; above 0 if the run resumes.
        config: settings of the run, including its resolved hyper-parameters.
        folder: folder of the run.

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
        """The name of the sweep; "train" for a single run."""
        return self.root.name if self._in_sweep else "train"

    @property
    def root(self) -> Path:
        """The folder of the sweep, or of a single run."""
        return self.folder.parents[1] if self._in_sweep else self.folder

    @property
    def _in_sweep(self) -> bool:
        folder = self.folder.absolute()
        return len(folder.parents) > 1 and SweepFolder(folder.parents[1]).is_sweep

    @property
    def trial(self) -> str:
        """The repetition and, if not 0, the draw: ``trial0_draw3``."""
        return f"trial{self.trial_seed}" + (f"_draw{self.hparams_seed}" if self.hparams_seed else "")

    @property
    def group(self) -> tuple[str, str]:
        """The row and the test environments, as two parts of a path."""
        return _path_part(self.row), _path_part(f"{self.dataset}_{self.test_envs}")

    def history(self) -> Iterator[dict[str, Any]]:
        """Yield the records of earlier starts in the order of steps."""
        with suppress(OSError):
            records, *_ = read_lines(read_bytes(RunFolder(self.folder).records_file, TABLE))
            yield from (record for record in records if record["step"] < self.start)


class Callback:
    """Base class of callbacks, which follow a run; override the methods you need.

    One instance is created per run; ``begin`` may be called again if the run starts over in the same process. An
    exception ends the callback with a note, but not the run.
    """

    def begin(self, run: RunInfo) -> None:
        """Begin to follow a run; called before its first update, and again when it resumes."""

    def step(self, step: int) -> None:
        """Receive the index of an update, from 0; called after every update."""

    def record(self, values: Mapping[str, Any]) -> None:
        """Receive the record of an evaluation: ``step``, ``env0_in_acc`` ..., see ``measurements``."""

    def end(self, state: State) -> None:
        """End with the state of the run: done, diverged, out of the race, interrupted or failed; called once."""


def measurements(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the measurements of a record by key; accuracies are fractions."""
    numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
    return {name: float(value) for name, value in numbers.items() if name not in _UNMEASURED}


def _path_part(text: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", text).lstrip(".-") or "row"
