"""Sweeps read back, ours and DomainBed's, into one collection."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from dg_batchformer.errors import InputError
from dg_batchformer.report.collection import CollectedRun, Collection
from dg_batchformer.report.domainbed_sweep import read_domainbed_sweep
from dg_batchformer.report.our_sweep import read_our_sweep
from dg_batchformer.store import SweepFolder


def collect(folders: Sequence[Path]) -> Collection:
    """Read sweeps into one collection; raise InputError for a folder that is none.

    Unfinished runs are listed without evaluations. A run that is there twice counts once: the first that was trained.
    """
    collections = [_read(folder) for folder in folders]
    runs, skipped = _distinct([run for collection in collections for run in collection.runs])
    return Collection(
        ", ".join(collection.name for collection in collections),
        list(dict.fromkeys(label for collection in collections for label in collection.rows)),
        runs,
        list(dict.fromkeys(command for collection in collections for command in collection.commands)),
        [*(note for collection in collections for note in collection.skipped), *skipped],
    )


def _read(folder: Path) -> Collection:
    ours = SweepFolder(folder)
    return read_our_sweep(ours) if ours.sweep_file.exists() else read_domainbed_sweep(folder)


def _distinct(runs: Sequence[CollectedRun]) -> tuple[list[CollectedRun], list[str]]:
    """Leave out what is there again: the same row, dataset, environments, trial and draw."""
    kept: dict[tuple[object, ...], CollectedRun] = {}
    again = 0
    for run in runs:
        asked = (run.label, run.benchmark, run.environments, run.test_envs)
        key = (*asked, run.trial_seed, run.hparams_seed)
        if key in kept and kept[key].state.is_final:
            again += run.state.is_final
        else:
            kept[key] = run
    noun = "run is" if again == 1 else "runs are"
    note = f"{again} {noun} there twice, with the same row, dataset, environments, trial and draw: the first counts"
    return list(kept.values()), [note] if again else []


# What must be equal in a cell: numbers of different protocols or data are not comparable. In records of DomainBed and
# ours; what an older record does not say is a value of its own.
_SETTINGS = ("protocol", "precision", "dataset_fingerprint")
_ASKED = ("task", "steps", "holdout_fraction", "hparams")


def refuse_mixed(collection: Collection) -> None:
    """Raise InputError where the runs of a row on a dataset were not trained under the same conditions.

    So too where runs on a dataset, of any row, count other environments.
    """
    _refuse_other_environments(collection.runs)
    cells: dict[tuple[str, str], list[CollectedRun]] = defaultdict(list)
    for run in collection.runs:
        if run.constant:
            cells[run.label, run.dataset].append(run)
    for (label, dataset), runs in cells.items():
        for name in (*_SETTINGS, *_ASKED):
            found = {_setting(run, name): run for run in runs}
            if len(found) > 1:
                said = ", ".join(f"{value} (as {run.path})" for value, run in list(found.items())[:3])
                raise InputError(
                    f"row {label!r} on {dataset} mixes runs of different {name}: {said}; give that row another label "
                    f"in one of the sweeps, or --mix to pool them all the same"
                )


def _refuse_other_environments(runs: Sequence[CollectedRun]) -> None:
    named: dict[str, tuple[str, ...]] = {}
    for run in runs:
        first = named.setdefault(run.dataset, run.environments)
        if run.environments != first:
            raise InputError(
                f"{run.dataset} has the environments {', '.join(first)} in one run and {', '.join(run.environments)} "
                "in another: two data sets of one name; give the sweeps one by one, or --mix to pool them all the same"
            )


def _setting(run: CollectedRun, name: str) -> str:
    value = run.constant.get("args", {}).get(name) if name in _ASKED else run.constant.get(name)
    return "not recorded" if value is None else str(value)
