"""A sweep in one file: ``records.parquet`` replaces the run folders, and is small enough to commit.

The file has a row per record and a column per measurement. A note in its metadata has the sweep manifest and the
outcome of every run.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dg_batchformer.errors import MALFORMED, InputError
from dg_batchformer.results.collection import CollectedRun, Ending
from dg_batchformer.results.evaluations import Evaluations
from dg_batchformer.results.runs import RecordsFile, RunRecords
from dg_batchformer.results.soups import soup_run
from dg_batchformer.results.winners import read_winners
from dg_batchformer.spec.manifest import SweepManifest
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.spec.run_folder import read_spec
from dg_batchformer.storage.folders import RunFolder, State, SweepFolder, atomic_write
from dg_batchformer.storage.parquet import read_parquet, require_pyarrow, write_parquet

if TYPE_CHECKING:
    import pyarrow

_VERSION = 1
_PLACE = ("run", "label", "dataset", "algorithm", "test_envs", "trial_seed", "hparams_seed")
_COLUMNS = (*_PLACE, "step", "final", "constant")
"""The columns before the measurements; ``constant`` is JSON: args, hparams, versions ..."""


class Contents(NamedTuple):
    """Contents of a sweep folder.

    Args:
        files: records by name of the run folder, sorted.
        states: states by run id.
        soups: the soups, as runs.
        endings: outcomes by run id; empty if the run folders have them.
        skipped: notes on soups that cannot be read.

    """

    files: Mapping[str, RecordsFile]
    states: Mapping[str, State]
    soups: Sequence[CollectedRun]
    endings: Mapping[str, Ending] = {}
    skipped: Sequence[str] = ()


def write_packed(folder: SweepFolder, manifest: SweepManifest, contents: Contents) -> None:
    """Write ``records.parquet``; raise InputError if pyarrow is missing or the folder is not writable."""
    require_pyarrow()
    places = {run.spec.id: (run.label, run.spec) for run in reversed(manifest.runs)}
    names = [*(name for name in dict.fromkeys(run.spec.id for run in manifest.runs) if name in contents.files)]
    names += [name for name in contents.files if name not in places]
    rows = [(name, places.get(name), run) for name in names for run in contents.files[name].runs]
    soups = {soup.path.name: (soup, read_spec(RunFolder(soup.path))) for soup in contents.soups}
    rows += [
        (_soup(name), (soup.label, spec), RunRecords(soup.constant, soup.evaluations))
        for name, (soup, spec) in soups.items()
    ]
    keys = list(dict.fromkeys(key for *_, run in rows for key in run.evaluations.keys))
    note = {
        "version": _VERSION,
        "sweep": {**folder.read(), "winners": [asdict(winner) for winner in read_winners(folder)]},
        "keys": keys,
        "runs": {name: [state.value, *contents.endings[name][:2]] for name, state in contents.states.items()},
        "seconds_alone": {name: ending.seconds_alone for name, ending in contents.endings.items()},
        "seconds_spared": {name: ending.seconds_spared for name, ending in contents.endings.items()},
        "files": {name: [file.unreadable, file.is_plain, file.intact] for name, file in contents.files.items()},
        "soups": {name: [soup.label, spec.as_dict()] for name, (soup, spec) in soups.items()},
    }
    try:
        with atomic_write(folder.packed_file) as target:
            write_parquet(target, _table(rows, keys), note)
    except OSError as error:
        raise InputError(f"cannot write {folder.packed_file}: {error.strerror}") from None


def _soup(name: str) -> str:
    return f"soups/{name}"


def _table(rows: Sequence[tuple[str, tuple[str, RunSpec] | None, RunRecords]], keys: Sequence[str]) -> "pyarrow.Table":
    """Return the table: a row per record, with the place of its run in the sweep, then its measurements."""
    import pyarrow

    counts = [len(run.evaluations) for *_, run in rows]
    values = np.full((sum(counts), len(keys)), np.nan)
    recorded = np.zeros(values.shape, np.bool_)
    place, begin = {key: column for column, key in enumerate(keys)}, 0
    for (*_, run), count in zip(rows, counts, strict=True):
        its_own = [place[key] for key in run.evaluations.keys]
        values[begin : begin + count, its_own] = run.evaluations.values
        recorded[begin : begin + count, its_own] = run.evaluations.recorded
        begin += count
    of_runs = [[name, *_said(asked), json.dumps(run.constant)] for name, asked, run in rows]
    repeated = np.repeat(np.arange(len(rows)), counts)
    columns = {
        name: pyarrow.array([of_run[column] for of_run in of_runs], kind).take(pyarrow.array(repeated))
        for column, (name, kind) in enumerate(_kinds().items())
    }
    columns["step"] = pyarrow.array(np.concatenate([[], *(run.evaluations.steps for *_, run in rows)]).astype(np.int64))
    columns["final"] = pyarrow.array(
        np.concatenate([[], *(run.evaluations.final for *_, run in rows)]).astype(np.bool_)
    )
    measured = [pyarrow.array(values[:, column], mask=~recorded[:, column]) for column in range(len(keys))]
    titles = [f"{key} (recorded)" if key in _COLUMNS else key for key in keys]
    return pyarrow.table([*(columns[name] for name in _COLUMNS), *measured], names=[*_COLUMNS, *titles])


def _kinds() -> dict[str, Any]:
    """Return the Arrow types of the columns that do not vary within a run."""
    import pyarrow

    numbers = dict.fromkeys(("trial_seed", "hparams_seed"), pyarrow.int64())
    return {name: numbers.get(name, pyarrow.string()) for name in (*_PLACE, "constant")}


def _said(asked: tuple[str, RunSpec] | None) -> list[Any]:
    """Return the place of a run in the sweep; Nones for a run that is not in the sweep manifest."""
    if asked is None:
        return [None] * (len(_PLACE) - 1)
    label, spec = asked
    envs = spec.environment_names(spec.test_envs)
    return [label, spec.dataset, spec.algorithm, envs, spec.trial_seed, spec.hparams_seed]


def read_packed(folder: SweepFolder, *, by_train_envs: bool = False) -> Contents:
    """Read ``records.parquet``; raise InputError if it is damaged or pyarrow is missing.

    Args:
        by_train_envs: the sweep sets the training environments.

    """
    table, note = read_parquet(folder.packed_file, texts=(*_PLACE, "constant"))
    try:
        if note["version"] != _VERSION:
            raise ValueError(f"version {note['version']!r:.20} wrote it, and this version reads {_VERSION}")
        if strange := [name for name in note["soups"] if not re.fullmatch("[0-9a-f]{16}", name)]:
            raise ValueError(f"it has a soup {strange[0]!r:.60}, a name that soups do not have")
        runs = _runs(table, list(map(str, note["keys"])))
        files = {
            str(name): RecordsFile(runs.get(name, []), int(unreadable), is_plain, intact)
            for name, (unreadable, is_plain, intact) in sorted(note["files"].items())
        }
        soups = [
            soup_run(
                label, RunSpec.from_dict(spec), runs[_soup(name)][-1], folder.soups / name, by_train_envs=by_train_envs
            )
            for name, (label, spec) in note["soups"].items()
        ]
        return Contents(
            files,
            {name: State(state) for name, (state, *_) in note["runs"].items()},
            soups,
            {
                name: Ending(
                    seconds,
                    str(failure),
                    note.get("seconds_alone", {}).get(name),
                    note.get("seconds_spared", {}).get(name),
                )
                for name, (_, seconds, failure) in note["runs"].items()
            },
        )
    except MALFORMED as error:
        raise InputError(f"{folder.packed_file} cannot be read as packed records: {error}") from None


def _runs(table: "pyarrow.Table", keys: Sequence[str]) -> dict[str, list[RunRecords]]:
    """Return the runs by name of their folder."""
    columns = table.columns[len(_COLUMNS) :]
    if table.column_names[: len(_COLUMNS)] != list(_COLUMNS) or len(columns) != len(keys):
        raise ValueError("it has other columns")
    shape = len(keys), len(table)
    values = np.array([column.to_numpy() for column in columns], np.float64).reshape(shape).T
    recorded = np.array([column.is_valid().to_numpy() for column in columns], np.bool_).reshape(shape).T
    steps, final = table["step"].to_numpy().astype(np.int64), table["final"].to_numpy().astype(np.bool_)
    runs: dict[str, list[RunRecords]] = {}
    for name, constant, where in _segments(table):
        there = np.flatnonzero(recorded[where].any(axis=0)).tolist()
        has = tuple(keys[place] for place in there)
        measured = Evaluations(steps[where], final[where], has, values[where][:, there], recorded[where][:, there])
        runs.setdefault(name, []).append(RunRecords(constant, measured))
    return runs


def _segments(table: "pyarrow.Table") -> Iterator[tuple[str, Mapping[str, Any], slice]]:
    """Yield every run: the name of its folder, the constant part of its records, and its rows."""
    name, constant = (table[column].unify_dictionaries().combine_chunks() for column in ("run", "constant"))
    names, constants = name.indices.to_numpy(), constant.indices.to_numpy()
    changes = np.flatnonzero((np.diff(names) != 0) | (np.diff(constants) != 0)) + 1
    bounds = [0, *changes.tolist(), len(table)] if len(table) else []
    for begin, end in pairwise(bounds):
        repeated = json.loads(constant.dictionary[int(constants[begin])].as_py())
        if not isinstance(repeated, dict) or not isinstance(repeated.get("args"), dict):
            raise ValueError("a run has no args")
        yield name.dictionary[int(names[begin])].as_py(), repeated, slice(begin, end)
