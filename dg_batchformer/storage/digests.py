"""SHA-256 digests of the files of a finished run, stored in ``done`` to detect later damage."""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from dg_batchformer.errors import MALFORMED, InputError
from dg_batchformer.storage.folders import RunFolder, write_json
from dg_batchformer.storage.safe_read import NOTE, WEIGHTS, open_regular, read_bytes

_KEY = "sha256"  # in ``done``: {file name: hex digest}
_UNWRITTEN = (b"", b"done")  # without digests: an empty file, and DomainBed's


def mark_done(folder: RunFolder, outcome: dict[str, Any]) -> None:
    """Write ``done``: the outcome of a run, and the digest of every final file that exists."""
    digests = {file.name: _sha256(file) for file in folder.final_files if file.is_file()}
    write_json(folder.done_file, {**outcome, _KEY: digests})


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
    return None if kept is None else kept.get(name) == hashlib.sha256(content).hexdigest()


def _kept(done: bytes) -> dict[str, Any] | None:
    """Return the digests in ``done``, None if it holds none; raise ValueError if it is damaged."""
    if done.strip() in _UNWRITTEN:
        return None
    try:
        kept = json.loads(done).get(_KEY)
    except MALFORMED as error:
        raise ValueError("done is not what a run wrote") from error
    if kept is not None and not isinstance(kept, dict):
        raise ValueError("done is not what a run wrote")
    return kept


def _is(folder: RunFolder, name: str, digest: object) -> bool:
    file = next((file for file in folder.final_files if file.name == name), None)
    try:
        return file is not None and _sha256(file) == digest
    except FileNotFoundError:
        return file != folder.records_file
    except OSError:
        return False


def _sha256(file: Path) -> str:
    with open_regular(file, WEIGHTS) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
