"""Sizes and SHA-256 digests of the files of a finished run, stored in ``done`` to detect later damage."""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from dg_batchformer.errors import MALFORMED, InputError
from dg_batchformer.storage.folders import RunFolder, write_json
from dg_batchformer.storage.safe_read import NOTE, WEIGHTS, open_regular, read_bytes

_KEY = "sha256"  # in ``done``: {file name: hex digest}
_SIZES = "bytes"  # in ``done``: {file name: size}, which runs of earlier versions lack
_UNWRITTEN = (b"", b"done")  # without digests: an empty file, and DomainBed's


def mark_done(folder: RunFolder, outcome: dict[str, Any]) -> None:
    """Write ``done``: the outcome of a run, and the digest and size of every final file that exists."""
    files = [file for file in folder.final_files if file.is_file()]
    digests = {file.name: _sha256(file) for file in files}
    sizes = {file.name: _size(file) for file in files}
    write_json(folder.done_file, {**outcome, _KEY: digests, _SIZES: sizes})


def damaged(folder: RunFolder, names: Collection[str] = ()) -> list[str]:
    """Return the names of files that changed since the run finished; [] if it stored no digests.

    A missing records file counts as damage. Other files may be missing, as copies omit them to save space.

    Args:
        names: files to check, besides ``done`` itself; all if empty.

    """
    try:
        kept = _kept(read_bytes(folder.done_file, NOTE)) or {}
    except OSError:
        return []
    except ValueError:
        return [folder.done_file.name]
    return [name for name in kept if (not names or name in names) and not _is(folder, name, kept[name])]


def refuse_damaged(folder: RunFolder, file: Path) -> None:
    """Raise InputError if a file of a finished run changed since the run wrote it."""
    if names := damaged(folder, [file.name]):
        raise InputError(
            f"{folder.path / names[0]} is damaged: it differs from what its run wrote; restore it from a copy, or "
            "train the run again"
        )


def is_intact(name: str, content: bytes, done: bytes) -> bool | None:
    """Return whether a file's content matches its digest; None if the run stored none.

    Args:
        done: content of the run's ``done`` file.

    """
    try:
        kept = _kept(done)
    except ValueError:
        return False
    return None if kept is None else name in kept and kept[name].digest == hashlib.sha256(content).hexdigest()


class _Kept(NamedTuple):
    """What ``done`` says of a file; the size is None in runs of earlier versions."""

    digest: object
    size: object


def _kept(done: bytes) -> dict[str, _Kept] | None:
    """Return what ``done`` says of files, None if it holds no digests; raise ValueError if it is damaged."""
    if done.strip() in _UNWRITTEN:
        return None
    try:
        outcome = json.loads(done)
        digests, sizes = outcome.get(_KEY), outcome.get(_SIZES, {})
        return None if digests is None else {name: _Kept(digests[name], sizes.get(name)) for name in digests}
    except MALFORMED as error:
        raise ValueError("done is not what a run wrote") from error


def _is(folder: RunFolder, name: str, kept: _Kept) -> bool:
    """Return whether a file is what the run wrote; one of another size is not read, however large it is."""
    file = next((file for file in folder.final_files if file.name == name), None)
    try:
        return file is not None and kept.size in (None, _size(file)) and _sha256(file) == kept.digest
    except FileNotFoundError:
        return file != folder.records_file
    except OSError:
        return False


def _size(file: Path) -> int:
    return file.stat().st_size


def _sha256(file: Path) -> str:
    with open_regular(file, WEIGHTS) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
