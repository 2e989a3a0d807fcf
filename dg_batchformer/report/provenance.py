"""Provenance of the numbers: settings, versions, data, hardware and cost."""

import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dg_batchformer import __version__
from dg_batchformer.results.collection import CollectedRun, Collection, cost_of, costs_of_rows
from dg_batchformer.results.row_conditions import by_benchmark
from dg_batchformer.storage.cost import Cost
from dg_batchformer.text.counts import how_many

_SETTINGS = {
    "protocol": "protocol",
    "precision": "precision",
    "data_path": "data path",
    "compile": "compiled code",
    "threads": "threads",
}
_NETWORK = {
    "backbone": "backbone",
    "weights": "weights",
    "image_size": "image size",
    "lr": "learning rate",
    "freeze": "frozen parts",
    "freeze_bn": "frozen BatchNorm",
    "resnet18": "ResNet-18",
    "resnet_dropout": "dropout",
}
_ASKED = {"steps": "steps", "checkpoint_freq": "steps between evaluations", "holdout_fraction": "holdout fraction"}
_UNKNOWN = "not recorded"
_MOST_VALUES = 4


def network(collection: Collection) -> list[tuple[str, str]]:
    """Return what decides most about the numbers, as (what, values): network, images, learning rate, deviations."""
    runs = _trained(collection.runs)
    found = [
        (title, _values(run.conditions.hparams.get(name) for run in runs if name in run.conditions.hparams))
        for name, title in _NETWORK.items()
    ]
    said = by_benchmark(runs, list(collection.rows))
    notes = dict.fromkeys(note for conditions in said.values() for note in conditions.about_protocols())
    found += [("deviations", "; ".join(notes))] if notes else []
    return [(title, values) for title, values in found if values]


def settings(collection: Collection) -> list[tuple[str, str]]:
    """Return further conditions of the trained runs, as (what, values)."""
    trained = _trained(collection.runs)
    if not trained:
        return []
    found = [(title, _values(run.constant.get(key) for run in trained)) for key, title in _SETTINGS.items()]
    found += [(title, _values(_mapping(run, "args").get(key) for run in trained)) for key, title in _ASKED.items()]
    for dataset in dict.fromkeys(run.dataset for run in trained):
        prints = [run.constant.get("dataset_fingerprint") for run in trained if run.dataset == dataset]
        if prints:
            found.append((f"fingerprint of {dataset}", _values(value and str(value)[:16] for value in prints)))
    return [(title, values) for title, values in found if values != _UNKNOWN]


def versions(collection: Collection) -> list[tuple[str, str]]:
    """Return the versions of packages that the trained runs used, as (package, versions)."""
    trained = _trained(collection.runs)
    packages = dict.fromkeys(name for run in trained for name in _mapping(run, "versions"))
    return [(name, _values(_mapping(run, "versions").get(name) for run in trained)) for name in packages]


def costs(collection: Collection) -> dict[str, Cost]:
    """Return the cost of the trained runs of every row, and of all runs by kind of device."""
    trained = _trained(collection.runs_and_searches)
    by_device: dict[str, list[CollectedRun]] = defaultdict(list)
    for run in trained:
        by_device[f"all on {run.constant.get('device', 'unknown devices')}"].append(run)
    by_row = costs_of_rows(trained)
    rows = {label: by_row[label] for label in collection.rows if label in by_row}
    return {**rows, **{device: cost_of(runs) for device, runs in by_device.items()}}


def made_with() -> str:
    """Return the version of this package, with the git commit if it runs from a checkout."""
    root = Path(__file__).parents[2]
    commit = ""
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        with suppress(OSError, subprocess.SubprocessError):
            commit = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    return f"dg_batchformer {__version__}" + (f", commit {commit}" if commit else "")


def _trained(runs: Sequence[CollectedRun]) -> list[CollectedRun]:
    return [run for run in runs if run.state.has_ended]


def _mapping(run: CollectedRun, key: str) -> Mapping[str, Any]:
    value = run.constant.get(key)
    return value if isinstance(value, dict) else {}


def _values(values: Iterable[Any]) -> str:
    """Return the distinct values, the most frequent first, with counts if there are several."""
    counts = Counter(_UNKNOWN if value is None else str(value) for value in values)
    if len(counts) == 1:
        return next(iter(counts))
    shown = [f"{value} ({how_many(count, 'run')})" for value, count in counts.most_common(_MOST_VALUES)]
    return ", ".join([*shown, *([f"{len(counts) - _MOST_VALUES} more"] if len(counts) > _MOST_VALUES else [])])
