"""Record: one evaluation of a run, and its line of JSON, which DomainBed's collector reads too."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FORMAT = 1
_ACCURACY = re.compile(r"env(\d+)_(in|out)_acc")


@dataclass(frozen=True)
class Record:
    """One evaluation.

    Args:
        step: updates done before it, less one; ``final`` records stand one past the last step.
        accuracy: by (env, split), fractions; only what was computed.
        final: whether it evaluates the model that the method returns, not the last one.
        args: what was asked, with DomainBed's keys.

    """

    step: int
    accuracy: Mapping[tuple[int, str], float]
    final: bool
    args: Mapping[str, Any]

    @classmethod
    def from_line(cls, line: str) -> "Record":
        """Read a line of ``results.jsonl``; raise ValueError for a torn or foreign one."""
        values = json.loads(line)
        if not isinstance(values, dict) or "step" not in values or not isinstance(values.get("args"), dict):
            raise ValueError("not a record: it lacks step or args")
        accuracy = {}
        for key, value in values.items():
            if match := _ACCURACY.fullmatch(key):
                accuracy[int(match[1]), match[2]] = float(value)
        return cls(int(values["step"]), accuracy, bool(values.get("final", False)), values["args"])


def to_line(values: Mapping[str, Any]) -> str:
    """Write a record as DomainBed does: sorted keys, NaN as the bare token."""
    return json.dumps(values, sort_keys=True) + "\n"
