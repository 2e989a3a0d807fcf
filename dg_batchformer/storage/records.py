"""A record: one evaluation of a run, as a line of JSON, which DomainBed's collector reads too."""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import orjson

from dg_batchformer.errors import MALFORMED

FORMAT = 1


def read_line(line: bytes) -> dict[str, Any]:
    """Read a line of ``results.jsonl``, ours or DomainBed's; raise ValueError for a torn or foreign one."""
    try:
        values = orjson.loads(line)
    except orjson.JSONDecodeError:
        values = json.loads(line)  # reads DomainBed's bare NaN too
    if not _is_record(values):
        raise ValueError("not a record: it lacks args, or a step that is a whole number")
    return values


def read_lines(content: bytes) -> tuple[list[dict[str, Any]], int, bool]:
    """Read a ``results.jsonl``: its records, how many lines are none, and whether it is all JSON of the standard."""
    lines = content.splitlines()
    with suppress(orjson.JSONDecodeError):
        values = orjson.loads(b"[%b]" % b",".join(lines))  # faster than line by line
        if len(values) == len(lines) and all(map(_is_record, values)):
            return values, 0, True
    records, unreadable = [], 0
    for line in lines:
        try:
            records.append(read_line(line))
        except MALFORMED:
            unreadable += bool(line.strip())
    return records, unreadable, False


def _is_record(values: object) -> bool:
    return isinstance(values, dict) and isinstance(values.get("args"), dict) and type(values.get("step")) is int


def to_line(values: Mapping[str, Any]) -> str:
    """Write a record as DomainBed does: sorted keys, NaN as the bare token."""
    return json.dumps(values, sort_keys=True) + "\n"
