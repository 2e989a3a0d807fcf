"""Image manifests: a CSV or JSON file that lists images with label and domain, and optionally their split.

The split files of MDLT (Yang et al., 2022), whose column for the domain is ``env``, are read as manifests too.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from dg_batchformer.errors import InputError, unknown
from dg_batchformer.storage.safe_read import TABLE, Unreadable, read_text
from dg_batchformer.text.spelling import one_spelling

SUFFIXES = (".csv", ".json")
_REQUIRED = ("path", "label", "domain")
_COLUMNS = (*_REQUIRED, "split")
_ALIASES = {"env": "domain"}  # MDLT's
_NEEDED = ("train", "val")
_SPLITS = (*_NEEDED, "test")


class Row(NamedTuple):
    """One image of a manifest.

    Args:
        place: file and line, or entry, for error messages.
        path: relative to the manifest's folder, without '..'.
        split: ``train``, ``val``, ``test``, or '' if the manifest has no splits.

    """

    place: str
    path: PurePosixPath
    label: str
    domain: str
    split: str


def read_manifest(file: Path) -> list[Row]:
    """Read a manifest; raise InputError, with the line (CSV) or entry (JSON), if it is invalid.

    Does not check that the images exist.
    """
    try:
        text = read_text(file, TABLE, encoding="utf-8-sig")
    except Unreadable:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read as a manifest ({error})") from None
    entries = _csv_entries(file, text) if file.suffix == ".csv" else _json_entries(file, text)
    rows = [_row(place, entry) for place, entry in entries]
    if not rows:
        raise InputError(f"{file} lists no images; add a row for each, with {', '.join(_REQUIRED)}")
    _refuse_repeated(rows)
    labels, domains = one_spelling(row.label for row in rows), one_spelling(row.domain for row in rows)
    rows = [row._replace(label=labels[row.label], domain=domains[row.domain]) for row in rows]
    _check_splits(file, rows)
    return rows


def _csv_entries(file: Path, text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    reader = csv.reader(io.StringIO(text), strict=True)
    try:
        header = [_called(name.strip()) for name in next(reader, [])]
        _check_columns(f"{file}:1", header)
        for values in reader:
            place = f"{file}:{reader.line_num}"
            if not values:
                continue  # a blank line
            if len(values) != len(header):
                raise InputError(f"{place}: {len(values)} values under {len(header)} columns ({', '.join(header)})")
            yield place, dict(zip(header, map(str.strip, values), strict=True))
    except csv.Error as error:
        raise InputError(f"{file}:{reader.line_num}: not valid CSV ({error})") from None


def _json_entries(file: Path, text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        entries = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{file}:{error.lineno}: not valid JSON ({error.msg})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not valid JSON ({error})") from None
    if not isinstance(entries, list):
        raise InputError(
            f'{file}: a manifest is a list, such as [{{"path": "a/1.jpg", "label": "dog", "domain": "a"}}, ...]'
        )
    for number, entry in enumerate(entries, start=1):
        place = f"{file}, entry {number}"
        if not isinstance(entry, dict):
            raise InputError(f"{place}: expected an object with {', '.join(_REQUIRED)}, got {entry!r:.60}")
        named = [(_called(name), value) for name, value in entry.items()]
        _check_columns(place, [name for name, _ in named])
        yield place, dict(named)


def _called(name: str) -> str:
    return _ALIASES.get(name, name)


def _check_columns(place: str, names: Sequence[str]) -> None:
    for name in names:
        if name not in _COLUMNS:
            raise unknown(f"column at {place}:", name, _COLUMNS)
        if names.count(name) > 1:
            raise InputError(f"{place}: column {name!r} occurs twice")
    missing = [name for name in _REQUIRED if name not in names]
    if missing:
        raise InputError(f"{place}: column {missing[0]!r} is missing; a manifest has {', '.join(_REQUIRED)} and may "
                         "have split")  # fmt: skip


def _row(place: str, entry: Mapping[str, Any]) -> Row:
    values = {name: _text(place, name, value) for name, value in entry.items()}
    path = PurePosixPath(values["path"])
    if path.is_absolute() or ".." in path.parts:
        raise InputError(
            f"{place}: path {values['path']} is outside the manifest's folder; give it relative to that folder"
        )
    return Row(place, path, values["label"], values["domain"], values.get("split", ""))


def _text(place: str, name: str, value: object) -> str:
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not text:
        raise InputError(f"{place}: {name} must be text, got {value!r:.60}")
    return text


def _refuse_repeated(rows: Sequence[Row]) -> None:
    first: dict[PurePosixPath, Row] = {}
    for row in rows:
        if row.path in first:
            raise InputError(f"{row.place}: {row.path} is listed twice, first at {first[row.path].place}")
        first[row.path] = row


def _check_splits(file: Path, rows: Sequence[Row]) -> None:
    """Raise InputError for invalid splits: every domain needs rows of both train and val; test is optional."""
    if not any(row.split for row in rows):
        return
    for row in rows:
        if row.split not in _SPLITS:
            raise unknown(f"split at {row.place}:", row.split, _SPLITS)
    for domain in sorted({row.domain for row in rows}):
        there = {row.split for row in rows if row.domain == domain}
        for split in _NEEDED:
            if split not in there:
                raise InputError(f"{file}: domain {domain} has no row with split {split}, but every domain needs "
                                 f"{' and '.join(_NEEDED)}")  # fmt: skip
