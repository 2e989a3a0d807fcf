"""A sweep of DomainBed, read back from ``<sweep>/<md5>/results.jsonl``. Nothing says which runs it lacks."""

from collections.abc import Sequence
from pathlib import Path

from dg_batchformer.catalog import ALGORITHM_ORDER
from dg_batchformer.errors import MALFORMED, InputError
from dg_batchformer.report.collection import CollectedRun, Collection, unreadable_lines
from dg_batchformer.report.index import read_folders
from dg_batchformer.report.runs import TrainedRun, whole_runs
from dg_batchformer.store import State


def read_domainbed_sweep(folder: Path) -> Collection:
    """Read a sweep of DomainBed; raise InputError where no folder in it holds records of runs."""
    files = read_folders(folder) if folder.is_dir() else {}
    runs, foreign = [], 0
    for name, file in files.items():
        for trained in whole_runs(file.runs):
            try:
                runs.append(_collected(folder / name, trained))
            except MALFORMED:
                foreign += 1
    if not runs:
        raise InputError(
            f"{folder} is no sweep folder: it has neither a sweep.json, as ours have from their start, nor folders "
            f"with a results.jsonl of records, as sweeps of DomainBed have"
        )
    skipped = unreadable_lines({folder / name / "results.jsonl": file.unreadable for name, file in files.items()})
    empty = sum(path.is_dir() and path.name not in files for path in folder.iterdir())
    if empty:
        skipped.append(f"{folder}: {empty} folders without results.jsonl skipped")
    if foreign:
        skipped.append(f"{folder}: {foreign} runs skipped whose args lack dataset, algorithm or test_envs")
    unfinished = sum(not run.state.is_final for run in runs)
    if unfinished:
        skipped.append(f"{folder}: {unfinished} runs left out that are not done")
    return Collection(folder.name, _rows(runs), runs, (), skipped)


def _collected(path: Path, run: TrainedRun) -> CollectedRun:
    args = run.args
    algorithm, dataset, envs = args["algorithm"], args["dataset"], tuple(sorted(args["test_envs"]))
    seeds = args.get("trial_seed", 0), args.get("hparams_seed", 0)
    if not (isinstance(algorithm, str) and isinstance(dataset, str) and envs):
        raise ValueError("no args of a run")
    if not all(type(number) is int and number >= 0 for number in (*envs, *seeds)):
        raise ValueError("no args of a run")
    if not (path / "done").exists():
        return CollectedRun(algorithm, dataset, algorithm, envs, *seeds, State.INTERRUPTED, path=path)
    return CollectedRun(algorithm, dataset, algorithm, envs, *seeds, State.DONE, run.evaluations, run.constant, path)


def _rows(runs: Sequence[CollectedRun]) -> list[str]:
    """Return the algorithms in the order of DomainBed's tables, unknown ones last, as they come."""
    found = dict.fromkeys(run.label for run in runs)
    return [
        *(name for name in ALGORITHM_ORDER if name in found),
        *(name for name in found if name not in ALGORITHM_ORDER),
    ]
