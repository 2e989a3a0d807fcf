"""Digests of what a finished run has written: ``done`` keeps them, so that later damage to a file is noticed."""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from dg_batchformer.errors import MALFORMED, InputError
from dg_batchformer.storage.folders import RunFolder, write_json
from dg_batchformer.storage.safe_read import NOTE, WEIGHTS, open_regular, read_bytes

_KEY = "sha256"  # in ``done``: {file name: hex digest}
_UNWRITTEN = (b"", b"done")  # what DomainBed's ``done`` holds, and one that was touched


def mark_done(folder: RunFolder, outcome: dict[str, Any]) -> None:
    """Write ``done``: how a run ended, and the digest of every final file that is there."""
    digests = {file.name: _sha256(file) for file in folder.final_files if file.is_file()}
    write_json(folder.done_file, {**outcome, _KEY: digests})


def damaged(folder: RunFolder, names: Collection[str] = ()) -> list[str]:
    """Return which files of a finished run differ from what it wrote; [] where no digests were kept.

    Records that are gone are damage. Other files may be left out of a copy, or deleted to save room.

    Args:
        names: the only files to look at, beside ``done`` itself; all if empty.

    """
    try:
        kept = _kept(read_bytes(folder.done_file, NOTE)) or {}
    except OSError:
        return []
    except ValueError:
        return [folder.done_file.name]
    return [name for name in kept if (not names or name in names) and not _is(folder, name, kept[name])]


def refuse_damaged(folder: RunFolder, file: Path) -> None:
    """Raise InputError where a file of a finished run differs from what the run wrote."""
    if names := damaged(folder, [file.name]):
        raise InputError(
            f"{folder.path / names[0]} is damaged: it differs from what its run wrote; restore it from a copy, or "
            "train the run again"
        )


def is_intact(name: str, content: bytes, done: bytes) -> bool | None:
    """Whether the content of a file is what its run wrote; None where no digest was kept.

    Args:
        done: the content of the file ``done`` of the run.

    """
    try:
        kept = _kept(done)
    except ValueError:
        return False
    return None if kept is None else kept.get(name) == hashlib.sha256(content).hexdigest()


def _kept(done: bytes) -> dict[str, Any] | None:
    """Return the digests that ``done`` holds, None where it holds none; raise ValueError where it is damaged."""
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
