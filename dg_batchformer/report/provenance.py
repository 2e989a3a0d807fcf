"""Provenance of the numbers: settings, versions, data, hardware and cost."""

import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dg_batchformer import __version__
from dg_batchformer.results.collection import CollectedRun, Collection
from dg_batchformer.text.counts import duration

_SETTINGS = {
    "protocol": "protocol",
    "precision": "precision",
    "data_path": "data path",
    "compile": "compiled evaluation",
    "threads": "threads",
}
_ASKED = {"steps": "steps", "checkpoint_freq": "steps between evaluations", "holdout_fraction": "holdout fraction"}
_UNKNOWN = "not recorded"


@dataclass(frozen=True)
class Cost:
    """Cost of the trained runs on one kind of device.

    Args:
        seconds: time of training and evaluation, summed over runs.
        untimed: number of runs whose time is not recorded.

    """

    device: str
    runs: int
    seconds: float
    untimed: int

    @property
    def hours(self) -> str:
        """Device hours, in words."""
        return f"{self.seconds / 3600:.3g}" if self.untimed < self.runs else _UNKNOWN

    @property
    def each(self) -> str:
        """Mean time of a run, in words."""
        timed = self.runs - self.untimed
        return duration(self.seconds / timed) if timed else _UNKNOWN


def settings(collection: Collection) -> list[tuple[str, str]]:
    """Return the settings, data and versions of the trained runs, as (name, values)."""
    trained = _trained(collection)
    if not trained:
        return []
    found = [(title, _values(run.constant.get(key) for run in trained)) for key, title in _SETTINGS.items()]
    found += [(title, _values(_mapping(run, "args").get(key) for run in trained)) for key, title in _ASKED.items()]
    for dataset in dict.fromkeys(run.dataset for run in trained):
        prints = [run.constant.get("dataset_fingerprint") for run in trained if run.dataset == dataset]
        if prints:
            found.append((f"fingerprint of {dataset}", _values(value and str(value)[:16] for value in prints)))
    packages = dict.fromkeys(name for run in trained for name in _mapping(run, "versions"))
    found += [(name, _values(_mapping(run, "versions").get(name) for run in trained)) for name in packages]
    return [(title, values) for title, values in found if values != _UNKNOWN]


def costs(collection: Collection) -> list[Cost]:
    """Return the device time of the trained runs by kind of device."""
    seconds: dict[str, list[float | None]] = defaultdict(list)
    for run in _trained(collection):
        seconds[str(run.constant.get("device", _UNKNOWN))].append(run.ending.seconds)
    return [
        Cost(device, len(times), sum(time for time in times if time is not None), times.count(None))
        for device, times in seconds.items()
    ]


def made_with() -> str:
    """Return the version of this package, with the git commit if it runs from a checkout."""
    root = Path(__file__).parents[3]
    commit = ""
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        with suppress(OSError, subprocess.SubprocessError):
            commit = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    return f"dg_batchformer {__version__}" + (f", commit {commit}" if commit else "")


def _trained(collection: Collection) -> list[CollectedRun]:
    return [run for run in collection.runs if run.state.is_final]


def _mapping(run: CollectedRun, key: str) -> Mapping[str, Any]:
    value = run.constant.get(key)
    return value if isinstance(value, dict) else {}


def _values(values: Iterable[Any]) -> str:
    """Return the distinct values, the most frequent first, with counts if there are several."""
    counts = Counter(_UNKNOWN if value is None else str(value) for value in values)
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{value} ({count} runs)" for value, count in counts.most_common())
