"""Records: one JSON line per evaluation of a run, in DomainBed's format."""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import orjson

from dg_batchformer.errors import MALFORMED

FORMAT = 1
_MOST_UNREADABLE = 1_000  # lines; a file with more is not one of records, and is not read on


def read_line(line: bytes) -> dict[str, Any]:
    """Parse a line of ``results.jsonl``, ours or DomainBed's; raise ValueError if it is torn or not a record."""
    try:
        values = orjson.loads(line)
    except orjson.JSONDecodeError:
        values = json.loads(line)  # accepts the bare NaN that DomainBed writes
    if not _is_record(values):
        raise ValueError("not a record: it lacks args, or a step that is a whole number")
    return values


def read_lines(content: bytes) -> tuple[list[dict[str, Any]], int, bool]:
    """Parse a ``results.jsonl``; return its records, the number of unreadable lines, and whether all is strict JSON."""
    lines = [line for line in content.splitlines() if line and not line.isspace()]
    with suppress(orjson.JSONDecodeError):
        values = orjson.loads(b"[%b]" % b",".join(lines))  # faster than line by line
        if len(values) == len(lines) and all(map(_is_record, values)):
            return values, 0, True
    records: list[dict[str, Any]] = []
    for place, line in enumerate(lines):
        if place - len(records) > _MOST_UNREADABLE:
            break
        with suppress(*MALFORMED):
            records.append(read_line(line))
    return records, len(lines) - len(records), False


def _is_record(values: object) -> bool:
    return isinstance(values, dict) and isinstance(values.get("args"), dict) and type(values.get("step")) is int


def to_line(values: Mapping[str, Any]) -> str:
    """Format a record as DomainBed does: sorted keys, a bare NaN token."""
    return json.dumps(values, sort_keys=True) + "\n"
