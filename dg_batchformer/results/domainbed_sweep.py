"""Read a sweep of DomainBed from ``<sweep>/<md5>/results.jsonl``; it does not declare its missing runs."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from dg_batchformer.catalog.datasets import DOMAINBED_ORDER, known_first
from dg_batchformer.errors import MALFORMED, InputError
from dg_batchformer.results.cache import read_folders
from dg_batchformer.results.collection import CollectedRun, Collection, unreadable_lines
from dg_batchformer.results.runs import RunRecords, whole_runs
from dg_batchformer.storage.folders import State
from dg_batchformer.text.counts import listed


def read_domainbed_sweep(folder: Path, unfinished: bool = False) -> Collection:
    """Read a sweep of DomainBed; raise InputError if no folder in it has records.

    Args:
        folder: of the sweep.
        unfinished: include runs without ``done``, which DomainBed writes at their end.

    """
    files = read_folders(folder) if folder.is_dir() else {}
    runs, foreign = [], []
    for name, file in files.items():
        for trained in whole_runs(file.runs):
            try:
                runs.append(_collected(folder / name, trained, unfinished))
            except MALFORMED:
                foreign.append(name)
    if not runs:
        raise InputError(
            f"{folder} is not a sweep folder: it has neither a sweep.json nor folders with a results.jsonl, as in "
            "sweeps of DomainBed"
            if folder.exists()
            else f"{folder} does not exist; give the folder of a sweep, such as results/quickstart"
        )
    reasons = {
        "no results.jsonl": sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name not in files),
        "results.jsonl is empty": [name for name, file in files.items() if not (file.runs or file.unreadable)],
        "args and evaluations do not identify the test environments": foreign,
    }
    skipped = [f"{folder}: skipped ({reason}): {listed(names)}" for reason, names in reasons.items() if names]
    return Collection(
        folder.name,
        known_first((run.label for run in runs), DOMAINBED_ORDER),
        runs,
        skipped=[*unreadable_lines(folder, files), *skipped],
        unfinished=_about_unmarked(folder, runs, unfinished),
    )


def _about_unmarked(folder: Path, runs: Sequence[CollectedRun], counted: bool) -> str:
    """Return the note on runs without ``done``, and how to include them."""
    said = "have no file 'done', which DomainBed writes when a run ends"
    if counted:
        return f"{said}; they are included with their records so far"
    said += "; --unfinished includes them with their records so far"
    if any(run.state.is_final for run in runs):
        return said
    create = shlex.join(["find", str(folder), "-name", "results.jsonl", "-execdir", "touch", "done", ";"])
    return f"{said}; if all runs finished and only these files were not copied, create them: {create}"


def _collected(path: Path, run: RunRecords, unfinished: bool) -> CollectedRun:
    dataset, algorithm, envs, trial, draw = run.place
    if max(envs) >= run.evaluations.num_environments:
        raise ValueError("its test environments were not evaluated")
    state = State.DONE if (path / "done").exists() else State.UNMARKED
    records = run if state.is_final or unfinished else RunRecords()
    return CollectedRun(algorithm, dataset, algorithm, envs, trial, draw, state, records, path)
