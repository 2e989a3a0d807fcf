"""A sweep of DomainBed, read back from ``<sweep>/<md5>/results.jsonl``. Nothing says which runs it lacks."""

from pathlib import Path

from dg_batchformer.catalog import ALGORITHM_ORDER, known_first
from dg_batchformer.errors import MALFORMED, InputError
from dg_batchformer.report.collection import CollectedRun, Collection, listed, unreadable_lines
from dg_batchformer.report.index import read_folders
from dg_batchformer.report.runs import TrainedRun, whole_runs
from dg_batchformer.store import State


def read_domainbed_sweep(folder: Path) -> Collection:
    """Read a sweep of DomainBed; raise InputError where no folder in it holds records of runs."""
    files = read_folders(folder) if folder.is_dir() else {}
    runs, foreign = [], []
    for name, file in files.items():
        for trained in whole_runs(file.runs):
            try:
                runs.append(_collected(folder / name, trained))
            except MALFORMED:
                foreign.append(name)
    if not runs:
        raise InputError(
            f"{folder} is no sweep folder: it has neither a sweep.json, as ours have from their start, nor folders "
            f"with a results.jsonl of records, as sweeps of DomainBed have"
        )
    skipped = unreadable_lines(folder, files)
    empty = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name not in files)
    if empty:
        skipped.append(f"{folder}: skipped for lack of a results.jsonl: {listed(empty)}")
    if foreign:
        skipped.append(f"{folder}: skipped, as args and evaluations do not say what was tested: {listed(foreign)}")
    unfinished = not all(run.state.is_final for run in runs)
    commands = ["DomainBed's sweep, delete_incomplete and then launch, as it was started"] if unfinished else []
    return Collection(folder.name, known_first((run.label for run in runs), ALGORITHM_ORDER), runs, commands, skipped)


def _collected(path: Path, run: TrainedRun) -> CollectedRun:
    dataset, algorithm, envs, trial, draw = run.place
    if max(envs) >= run.evaluations.num_environments:
        raise ValueError("it is tested on environments that were not evaluated")
    if not (path / "done").exists():
        return CollectedRun(algorithm, dataset, algorithm, envs, trial, draw, State.INTERRUPTED, path=path)
    of_run = run.evaluations, run.constant
    return CollectedRun(algorithm, dataset, algorithm, envs, trial, draw, State.DONE, *of_run, path)
