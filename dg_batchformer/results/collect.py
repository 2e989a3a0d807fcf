"""Read sweeps, ours and DomainBed's, into one collection."""

from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path

from dg_batchformer.errors import InputError
from dg_batchformer.results.arrange import AS_THEY_ARE, Arrangement, arranged, in_order
from dg_batchformer.results.collection import CollectedRun, Collection
from dg_batchformer.results.domainbed_sweep import read_domainbed_sweep
from dg_batchformer.results.our_sweep import our_runs, read_our_runs, read_our_sweep
from dg_batchformer.storage.folders import SweepFolder
from dg_batchformer.text.counts import how_many, listed


def collect(
    folders: Sequence[Path],
    *,
    unfinished: bool = False,
    predictions: bool = False,
    search: bool | None = None,
    arrangement: Arrangement = AS_THEY_ARE,
) -> Collection:
    """Read sweeps into one collection; raise InputError for a folder that is not a sweep, or for an unknown row.

    Duplicate runs count once: the first finished one.

    Args:
        folders: of the sweeps.
        unfinished: include unfinished runs with their records so far; otherwise they have no evaluations.
        predictions: prediction files will be read, so damage to them counts.
        search: of sweeps with a search, only its runs (true), or only those of its winners (false); None keeps both.
        arrangement: which rows to keep, their names and their order.

    """
    found = [_read(folder, unfinished, predictions) for folder in folders]
    if search and not any(run.searches for collection in found for run in collection.runs):
        raise InputError(f"search reads the runs of a search, but {listed([one.name for one in found])} has none")
    collections = arranged([_of_search(collection, search) for collection in found], arrangement)
    runs, skipped = _distinct([run for collection in collections for run in collection.runs])
    left = {id(run) for run in runs if not run.state.has_ended}
    lacking = [collection for collection in collections if any(id(run) in left for run in collection.runs)]
    return Collection(
        ", ".join(collection.name for collection in collections),
        in_order(list(dict.fromkeys(label for one in collections for label in one.rows)), arrangement),
        runs,
        list(dict.fromkeys(command for collection in lacking for command in collection.commands)),
        [
            *(note for collection in collections for note in collection.skipped),
            *skipped,
            *(_unfinished(collection, left) for collection in lacking),
        ],
        searched=_distinct([run for collection in collections for run in collection.searched])[0],
    )


def _read(folder: Path, unfinished: bool, predictions: bool) -> Collection:
    ours = SweepFolder(folder)
    if ours.is_sweep:
        return read_our_sweep(ours, unfinished, predictions)
    if runs := our_runs(folder):
        return read_our_runs(folder, runs, unfinished)
    return read_domainbed_sweep(folder, unfinished)


def _of_search(collection: Collection, search: bool | None) -> Collection:
    """Keep the runs of a search, or those of its winners; raise InputError if it has not chosen any."""
    if search is None or not any(run.searches for run in collection.runs):
        return collection
    runs = [run for run in collection.runs if run.searches == search]
    if not runs:
        finish = f": {collection.commands[0]}" if collection.commands else ", by its sweep command"
        raise InputError(
            f"the search of {collection.name} has not chosen its winners; finish it{finish}; or give --search to read "
            "the runs of the search itself"
        )
    searched = [] if search else [run for run in collection.runs if run.searches]
    return replace(collection, runs=runs, searched=searched)


def _unfinished(collection: Collection, left: Set[int]) -> str:
    """Return a note on the number of unfinished runs of a sweep, and how to finish them."""
    number, runs = sum(id(run) in left for run in collection.runs), len(collection.runs)
    return f"{number} of {how_many(runs, 'run')} of {collection.name} {collection.unfinished}"


def _distinct(runs: Sequence[CollectedRun]) -> tuple[list[CollectedRun], list[str]]:
    """Drop duplicates: runs with equal row, dataset, environments, trial, draw or grid point, and conditions."""
    trained = {_place(run) for run in runs if run.state.is_final}
    kept: list[CollectedRun] = []
    there: dict[tuple[object, ...], list[Mapping[str, str]]] = defaultdict(list)
    again = 0
    for run in runs:
        place, values = _place(run), run.conditions.everything
        if not run.state.is_final and place in trained:
            continue
        if any(_agree(values, others) for others in there[place]):
            again += run.state.is_final
        else:
            kept.append(run)
            there[place].append(values)
    noun = "run is" if again == 1 else "runs are"
    note = f"{again} {noun} duplicated, with equal row, dataset, environments, trial and draw: the first one counts"
    return kept, [note] if again else []


def _agree(values: Mapping[str, str], others: Mapping[str, str]) -> bool:
    """Return whether common names have equal values; later versions record more names."""
    return all(others.get(name, value) == value for name, value in values.items())


def _place(run: CollectedRun) -> tuple[object, ...]:
    return run.label, run.dataset, run.imbalance, run.train_envs, run.test_envs, run.trial_seed, run.candidate


def refuse_mixed(collection: Collection) -> None:
    """Raise InputError if the runs of a row on a dataset have different conditions.

    Their conditions and default hparams (draw 0) must be equal, and all hparams of runs with the same trial and draw.
    All runs on a dataset, of any row, must have the same environments.
    """
    _refuse_other_environments(collection.runs)
    cells: dict[tuple[str, str], list[CollectedRun]] = defaultdict(list)
    for run in collection.runs:
        if run.constant:
            cells[run.label, run.benchmark].append(run)
    for runs in cells.values():
        _refuse_different(runs, [run.conditions.fields for run in runs])
        defaults = [run for run in runs if run.hparams_seed == 0]
        _refuse_different(defaults, [_fixed(run) for run in defaults])
        places: dict[tuple[object, ...], list[CollectedRun]] = defaultdict(list)
        for run in runs:
            places[_place(run)].append(run)
        for rivals in places.values():
            if len(rivals) > 1:
                _refuse_different(rivals, [run.conditions.everything for run in rivals])


def _fixed(run: CollectedRun) -> dict[str, str]:
    """Return the hparams that the grid of a row does not vary."""
    return {name: value for name, value in run.conditions.hparams.items() if name not in run.point}


def _refuse_different(runs: Sequence[CollectedRun], values: Sequence[Mapping[str, str]]) -> None:
    """Raise InputError if runs of a cell have different values for a name."""
    for name in dict.fromkeys(name for of_run in values for name in of_run):
        found: dict[str, CollectedRun] = {}
        for run, of_run in zip(runs, values, strict=True):
            if name in of_run:
                found.setdefault(of_run[name], run)
        if len(found) > 1:
            said = ", ".join(f"{value} (as {run.path})" for value, run in list(found.items())[:3])
            raise InputError(
                f"row {runs[0].label!r} on {runs[0].benchmark} mixes runs of different {name}: {said}; give that row "
                "another label in one of the sweeps, or give --mix to pool them anyway (of equal trials, the first "
                "counts)"
            )


def _refuse_other_environments(runs: Sequence[CollectedRun]) -> None:
    named: dict[str, tuple[str, ...]] = {}
    for run in runs:
        first = named.setdefault(run.dataset, run.environments)
        if run.environments != first:
            raise InputError(
                f"{run.dataset} has the environments {', '.join(first)} in one run and {', '.join(run.environments)} "
                "in another: two datasets of the same name; give the sweeps separately, or --mix to pool them anyway"
            )
