"""Read run folders with a parsed-record cache: later calls read only files that changed.

The cache is in the cache folder, not with the runs, which may be read-only or another user's. If it is damaged, the
files are read instead.
"""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from dg_batchformer.results.evaluations import Evaluations
from dg_batchformer.results.runs import RecordsFile, RunRecords, parse_records
from dg_batchformer.runtime.garbage import no_collection
from dg_batchformer.runtime.parallel import in_every_core, usable_cores
from dg_batchformer.storage.digests import is_intact
from dg_batchformer.storage.folders import RunFolder, atomic_write, cache_dir
from dg_batchformer.storage.safe_read import NOTE, TABLE, WEIGHTS, open_regular, read_bytes

_VERSION = 5

Stamp = tuple[int, ...]  # size, times and inode of results.jsonl and ``done``, to detect changes
_ABSENT = (0, 0, 0, 0)
_RECORDS, _DONE = RunFolder(Path()).records_file.name, RunFolder(Path()).done_file.name
Index = dict[str, tuple[Stamp, RecordsFile]]  # by the name of the run folder
_Arrays = dict[str, NDArray[Any]]

_MANY = 1000  # files; from this number on, several processes read them


def read_folders(folder: Path) -> dict[str, RecordsFile]:
    """Read the run folders in a folder, by sorted name; folders without records are skipped."""
    with no_collection():
        known, stamps = _load(folder), _stamps(folder)
        new = {name: stamp for name, stamp in stamps.items() if name not in known or known[name][0] != stamp}
        packs = _parse_at_once(folder, new) if len(new) >= _MANY else [_parse_packed(folder, new)]
        parsed = _unpack_all(packs)
        read = {name: parsed.get(name) or known[name] for name in stamps if name in parsed or name not in new}
        if parsed or len(read) < len(known):
            with suppress(OSError):
                _keep(folder, [_pack(read)] if known else packs)
        return {name: file for name, (_, file) in read.items()}


def _stamps(folder: Path) -> dict[str, Stamp]:
    stamps = {}
    for name in sorted(os.listdir(folder)):  # noqa: PTH208  # building Paths is slow
        with suppress(OSError):
            stamps[name] = _stamp(_path(folder, name, _RECORDS)) + _ABSENT
            stamps[name] = stamps[name][:4] + _stamp(_path(folder, name, _DONE))
    return stamps


def _path(folder: Path, name: str, file: str) -> str:
    return f"{folder}/{name}/{file}"  # building Paths is slow


def _stamp(path: str) -> Stamp:
    stat = os.stat(path)  # noqa: PTH116
    return stat.st_size, stat.st_mtime_ns, stat.st_ino, stat.st_ctime_ns


def _parse(folder: Path, stamps: Mapping[str, Stamp]) -> Index:
    """Parse the records of run folders; folders deleted meanwhile are skipped."""
    index = {}
    for name, stamp in stamps.items():
        with suppress(OSError):
            content = read_bytes(_path(folder, name, _RECORDS), TABLE)
            done = read_bytes(_path(folder, name, _DONE), NOTE) if stamp[4:] != _ABSENT else b""
            index[name] = stamp, replace(parse_records(content), intact=is_intact(_RECORDS, content, done))
    return index


def _parse_at_once(folder: Path, stamps: Mapping[str, Stamp]) -> list[_Arrays]:
    """Parse the records of run folders on all cores; results are packed, as pickling many small arrays is slow."""
    names = list(stamps)
    count = 4 * usable_cores()  # several shares per core, for load balancing
    shares = [{name: stamps[name] for name in names[share::count]} for share in range(count)]
    return list(in_every_core(partial(_parse_packed, folder), shares, at_once=1, few=0))


def _parse_packed(folder: Path, stamps: Mapping[str, Stamp]) -> _Arrays:
    return _pack(_parse(folder, stamps))


def cache_file(folder: Path) -> Path:
    """Return the file that caches the parsed records of a folder."""
    return cache_dir() / "records" / f"{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]}.npz"


def _keep(folder: Path, packs: Sequence[_Arrays]) -> None:
    cache_file(folder).parent.mkdir(parents=True, exist_ok=True)
    named = {f"{place}/{name}": array for place, arrays in enumerate(packs) for name, array in arrays.items()}
    with atomic_write(cache_file(folder)) as target:
        np.savez(target, **named)  # type: ignore[arg-type]


def _load(folder: Path) -> Index:
    """Return the cached index of a folder; {} if it cannot be read."""
    try:
        packs: dict[str, _Arrays] = defaultdict(dict)
        with open_regular(cache_file(folder), WEIGHTS) as file, np.load(file, allow_pickle=False) as arrays:
            for entry in arrays.files:
                place, name = entry.split("/")
                packs[place][name] = arrays[entry]
        return _unpack_all(packs.values())
    except Exception:  # NumPy and zipfile may raise anything on damaged files
        return {}


_COLUMNS = ("steps", "final", "values", "recorded")


def _pack(index: Index) -> _Arrays:
    """Pack constant values into one JSON text, and the columns of all runs with equal keys into shared arrays."""
    kinds: dict[tuple[str, ...], list[Evaluations]] = defaultdict(list)
    files = []
    for name, (stamp, file) in index.items():
        runs, unreadable = [], file.unreadable
        for run in file.runs:
            try:
                constant = _text(run.constant, file.is_plain)
                "".join(run.evaluations.keys).encode()
            except (TypeError, RecursionError, UnicodeError):  # nested too deep, or unpaired surrogates
                unreadable += len(run.evaluations)
                continue
            kinds[run.evaluations.keys].append(run.evaluations)
            runs.append((constant, list(kinds).index(run.evaluations.keys), len(run.evaluations)))
        files.append((os.fsencode(name).decode("latin-1"), stamp, unreadable, file.intact, runs))  # names are bytes
    arrays: _Arrays = {"text": np.frombuffer(orjson.dumps([_VERSION, list(kinds), files]), np.uint8)}
    for kind, of_kind in enumerate(kinds.values()):
        for column in _COLUMNS:
            arrays[f"{column}{kind}"] = np.concatenate([getattr(evaluations, column) for evaluations in of_kind])
    return arrays


def _text(constant: Mapping[str, Any], is_plain: bool) -> orjson.Fragment | str:
    """Return raw JSON, or JSON as a string if it may contain NaN, which orjson does not support."""
    return orjson.Fragment(orjson.dumps(constant)) if is_plain else json.dumps(constant)


def _unpack_all(packs: Iterable[_Arrays]) -> Index:
    return {name: file for arrays in packs for name, file in _unpack(arrays).items()}


def _unpack(arrays: _Arrays) -> Index:
    """Unpack arrays of ``_pack``; raise one of MALFORMED if they are malformed or of another version."""
    version, keys, files = orjson.loads(arrays["text"].tobytes())
    if version != _VERSION:
        raise ValueError(f"packed by version {version}")
    kinds = [tuple(of_kind) for of_kind in keys]
    columns = [[arrays[f"{column}{kind}"] for column in _COLUMNS] for kind in range(len(kinds))]
    begins = [0] * len(kinds)
    index = {}
    for name, stamp, unreadable, intact, runs in files:
        unpacked = []
        for constant, kind, count in runs:
            begin, begins[kind] = begins[kind], begins[kind] + count
            steps, final, values, recorded = (column[begin : begins[kind]] for column in columns[kind])
            said = json.loads(constant) if isinstance(constant, str) else constant
            unpacked.append(RunRecords(said, Evaluations(steps, final, kinds[kind], values, recorded)))
        is_plain = not any(isinstance(constant, str) for constant, *_ in runs)
        file = RecordsFile(unpacked, unreadable, is_plain, intact)
        index[os.fsdecode(name.encode("latin-1"))] = tuple(stamp), file
    return index
