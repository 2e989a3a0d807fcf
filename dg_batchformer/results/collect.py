"""Sweeps read back, ours and DomainBed's, into one collection."""

from collections import defaultdict
from collections.abc import Sequence, Set
from pathlib import Path

from dg_batchformer.errors import InputError
from dg_batchformer.results.collection import CollectedRun, Collection, how_many
from dg_batchformer.results.domainbed_sweep import read_domainbed_sweep
from dg_batchformer.results.our_sweep import our_runs, read_our_runs, read_our_sweep
from dg_batchformer.storage.folders import SweepFolder


def collect(folders: Sequence[Path], *, unfinished: bool = False, predictions: bool = False) -> Collection:
    """Read sweeps into one collection; raise InputError for a folder that is none.

    A run that is there twice counts once: the first that was trained.

    Args:
        unfinished: whether runs count that are not trained to their end, with what they recorded so far; else these
            are listed without evaluations.
        predictions: whether files of predictions are to be read, and damage to them counts.

    """
    collections = [_read(folder, unfinished, predictions) for folder in folders]
    runs, skipped = _distinct([run for collection in collections for run in collection.runs])
    left = {id(run) for run in runs if not run.state.is_final}
    lacking = [collection for collection in collections if any(id(run) in left for run in collection.runs)]
    return Collection(
        ", ".join(collection.name for collection in collections),
        list(dict.fromkeys(label for collection in collections for label in collection.rows)),
        runs,
        list(dict.fromkeys(command for collection in lacking for command in collection.commands)),
        [
            *(note for collection in collections for note in collection.skipped),
            *skipped,
            *(_unfinished(collection, left) for collection in lacking),
        ],
    )


def _read(folder: Path, unfinished: bool, predictions: bool) -> Collection:
    ours = SweepFolder(folder)
    if ours.sweep_file.exists():
        return read_our_sweep(ours, unfinished, predictions)
    if runs := our_runs(folder):
        return read_our_runs(folder, runs, unfinished)
    return read_domainbed_sweep(folder, unfinished)


def _unfinished(collection: Collection, left: Set[int]) -> str:
    """Say how many runs of a sweep are not trained to their end, and what to do about it."""
    number, runs = sum(id(run) in left for run in collection.runs), len(collection.runs)
    return f"{number} of {how_many(runs, 'run')} of {collection.name} {collection.unfinished}"


def _distinct(runs: Sequence[CollectedRun]) -> tuple[list[CollectedRun], list[str]]:
    """Leave out what is there again: the same row, dataset, environments, trial and draw, trained alike."""
    trained = {_place(run) for run in runs if run.state.is_final}
    kept: dict[tuple[object, ...], CollectedRun] = {}
    again = 0
    for run in runs:
        if not run.state.is_final and _place(run) in trained:
            continue
        key = (*_place(run), *_conditions(run).values())
        again += key in kept and run.state.is_final
        kept.setdefault(key, run)
    noun = "run is" if again == 1 else "runs are"
    note = f"{again} {noun} there twice, with the same row, dataset, environments, trial and draw: the first counts"
    return list(kept.values()), [note] if again else []


def _place(run: CollectedRun) -> tuple[object, ...]:
    return run.label, run.dataset, run.sources, run.test_envs, run.trial_seed, run.hparams_seed


# What must be equal in a cell: numbers of different protocols or data are not comparable. In records of DomainBed and
# ours; what an older record does not say is a value of its own.
_SETTINGS = ("protocol", "precision", "dataset_fingerprint", "training_short_side")
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
        conditions = [(_conditions(run), run) for run in runs]
        for name in (*_SETTINGS, *_ASKED):
            found = {of_run[name]: run for of_run, run in reversed(conditions)}
            if len(found) > 1:
                said = ", ".join(f"{value} (as {run.path})" for value, run in list(found.items())[:3])
                raise InputError(
                    f"row {label!r} on {dataset} mixes runs of different {name}: {said}; give that row another label "
                    f"in one of the sweeps, or --mix to pool them all the same, where of equal trials the first counts"
                )


def _conditions(run: CollectedRun) -> dict[str, str]:
    """Return under which conditions a run was trained; what its records do not say is a value of its own."""
    args = run.constant.get("args", {})
    found = {**{name: run.constant.get(name) for name in _SETTINGS}, **{name: args.get(name) for name in _ASKED}}
    return {name: "not recorded" if value is None else str(value) for name, value in found.items()}


def _refuse_other_environments(runs: Sequence[CollectedRun]) -> None:
    named: dict[str, tuple[str, ...]] = {}
    for run in runs:
        first = named.setdefault(run.dataset, run.environments)
        if run.environments != first:
            raise InputError(
                f"{run.dataset} has the environments {', '.join(first)} in one run and {', '.join(run.environments)} "
                "in another: two data sets of one name; give the sweeps one by one, or --mix to pool them all the same"
            )
