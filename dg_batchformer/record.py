"""A record: one evaluation of a run, as a line of JSON, which DomainBed's collector reads too."""

import json
from collections.abc import Mapping
from typing import Any

import orjson

FORMAT = 1


def read_line(line: bytes) -> dict[str, Any]:
    """Read a line of ``results.jsonl``, ours or DomainBed's; raise ValueError for a torn or foreign one."""
    try:
        values = orjson.loads(line)
    except orjson.JSONDecodeError:
        values = json.loads(line)  # reads DomainBed's bare NaN too
    if not isinstance(values, dict) or not isinstance(values.get("args"), dict):
        raise ValueError("not a record: it lacks args")
    if type(values.get("step")) is not int:
        raise ValueError("not a record: its step is no whole number")
    return values


def to_line(values: Mapping[str, Any]) -> str:
    """Write a record as DomainBed does: sorted keys, NaN as the bare token."""
    return json.dumps(values, sort_keys=True) + "\n"
