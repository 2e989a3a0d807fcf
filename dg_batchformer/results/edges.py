"""Chosen hparams at the edge of the values that were tried, where a wider range may be better."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_LEAST_VALUES = 3  # with fewer, every value is at an edge


def differing(tried: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the sorted names of hparams that differ between candidates."""
    names = {name for hparams in tried for name in hparams}
    return sorted(name for name in names if any(one.get(name) != tried[0].get(name) for one in tried))


def edges(chosen: Mapping[str, Any], tried: Sequence[Mapping[str, Any]], names: Iterable[str]) -> dict[str, str]:
    """Return which chosen numbers are the ``smallest`` or ``largest`` of those tried, by name of the hparam."""
    found = {}
    for name in names:
        values = {one[name] for one in tried if _is_number(one.get(name))}
        if len(values) >= _LEAST_VALUES and _is_number(chosen.get(name)):
            if chosen[name] == min(values):
                found[name] = "smallest"
            elif chosen[name] == max(values):
                found[name] = "largest"
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
