"""Run folders read with a memory: a further call reads only the files that changed.

The memory lies in the cache, not with the runs, which may be read-only or somebody else's. Where something is wrong
with it, the files are read instead.
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import orjson
from numpy.typing import NDArray

from dg_batchformer.errors import MALFORMED
from dg_batchformer.report.evaluations import Evaluations
from dg_batchformer.report.runs import RecordsFile, TrainedRun, parse_records
from dg_batchformer.store import atomic_write, cache_dir

_VERSION = 1


class Stamp(NamedTuple):
    """By what a file is known to be the one that was read."""

    size: int
    modified: int
    inode: int


Index = Mapping[str, tuple[Stamp, RecordsFile]]  # by the name of the run's folder


def read_folders(folder: Path) -> dict[str, RecordsFile]:
    """Read the run folders directly below a folder, by name, sorted; those without records are left out."""
    known = _load(folder)
    read: dict[str, tuple[Stamp, RecordsFile]] = {}
    for name in sorted(os.listdir(folder)):  # noqa: PTH208  # Paths would take longer than the index
        path = f"{folder}/{name}/results.jsonl"
        with suppress(OSError):
            stat = os.stat(path)  # noqa: PTH116
            stamp = Stamp(stat.st_size, stat.st_mtime_ns, stat.st_ino)
            if name in known and known[name][0] == stamp:
                read[name] = known[name]
            else:
                read[name] = stamp, parse_records(Path(path).read_bytes())
    if read != known:
        with suppress(OSError):
            _keep(folder, read)
    return {name: file for name, (_, file) in read.items()}


def _file(folder: Path) -> Path:
    return cache_dir() / "records" / f"{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]}.npz"


def _keep(folder: Path, read: Index) -> None:
    """Keep what was read: one text of everything constant, and the columns of all runs with the same keys together."""
    kinds: dict[tuple[str, ...], list[Evaluations]] = defaultdict(list)
    files = []
    for name, (stamp, file) in read.items():
        runs = []
        for run in file.runs:
            kinds[run.evaluations.keys].append(run.evaluations)
            runs.append((run.constant, list(kinds).index(run.evaluations.keys), len(run.evaluations)))
        files.append((name, tuple(stamp), file.unreadable, runs))
    arrays = {"text": np.frombuffer(orjson.dumps([_VERSION, list(kinds), files]), np.uint8)}
    for kind, of_kind in enumerate(kinds.values()):
        for column in _COLUMNS:
            arrays[f"{column}{kind}"] = np.concatenate([getattr(evaluations, column) for evaluations in of_kind])
    _file(folder).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(_file(folder)) as target:
        np.savez(target, **arrays)  # type: ignore[arg-type]


_COLUMNS = ("steps", "final", "values", "recorded")


def _load(folder: Path) -> Index:
    """Return what was kept of a folder; nothing where that cannot be read."""
    try:
        with _file(folder).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            version, kinds, files = orjson.loads(arrays["text"].tobytes())
            if version != _VERSION:
                return {}
            columns = [{column: arrays[f"{column}{kind}"] for column in _COLUMNS} for kind in range(len(kinds))]
        return _unpack(files, [tuple(keys) for keys in kinds], columns)
    except (OSError, EOFError, BadZipFile, *MALFORMED):
        return {}


def _unpack(
    files: list[Any], kinds: list[tuple[str, ...]], columns: list[dict[str, NDArray[Any]]]
) -> dict[str, tuple[Stamp, RecordsFile]]:
    begins = [0] * len(kinds)
    index = {}
    for name, stamp, unreadable, runs in files:
        unpacked = []
        for constant, kind, count in runs:
            begin, begins[kind] = begins[kind], begins[kind] + count
            steps, final, values, recorded = (columns[kind][column][begin : begins[kind]] for column in _COLUMNS)
            unpacked.append(TrainedRun(constant, Evaluations(steps, final, kinds[kind], values, recorded)))
        index[name] = (Stamp(*stamp), RecordsFile(unpacked, unreadable))
    return index
