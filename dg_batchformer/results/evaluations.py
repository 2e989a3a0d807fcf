"""The evaluations of one run, stored by column."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_TEXTUAL = ("step", "format", "threads", "final", "soup_members")  # numbers that are not measurements
_NUMBERS = (float, int, type(None))


@dataclass(frozen=True, eq=False)
class Evaluations:
    """Measurements in the records of a run, in file order: R records, K keys.

    Args:
        steps: [R], step index, from 0.
        final: [R], whether the record is of the model that the method returns, not of the last iterate.
        keys: DomainBed's, such as ``env0_in_acc``, ``env1_out_loss``, ``loss``.
        values: [R, K]; NaN where a run diverged, or nothing was recorded.
        recorded: [R, K], whether the record has the key.

    """

    steps: NDArray[np.int64]
    final: Flags
    keys: tuple[str, ...]
    values: Floats
    recorded: Flags

    @classmethod
    def of(cls, records: Sequence[dict[str, Any]]) -> "Evaluations":
        """Extract the measurements of records; raise ValueError if one is not a number."""
        first: dict[str, Any] = {}  # the first value of every key
        for record in reversed(records):
            first.update(record)
        keys = tuple(key for key, value in first.items() if _is_number(value) and key not in _TEXTUAL)
        shape = len(records), len(keys)
        if all(len(record) == len(first) for record in records):
            recorded = np.ones(shape, np.bool_)
        else:
            has = [list(map(record.__contains__, keys)) for record in records]
            recorded = np.array(has, np.bool_).reshape(shape)
        return cls(
            np.array([record["step"] for record in records], np.int64),
            np.array([bool(record.get("final")) for record in records], np.bool_),
            keys,
            np.array([list(map(record.get, keys)) for record in records], np.float64).reshape(shape),
            recorded,
        )

    def __len__(self) -> int:
        return len(self.steps)

    def at(self, where: Flags | slice) -> "Evaluations":
        """Return a subset of the evaluations."""
        return Evaluations(self.steps[where], self.final[where], self.keys, self.values[where], self.recorded[where])

    def column(self, key: str) -> Floats:
        """Return the values of a key [R], NaN where it was not recorded."""
        place = self._places.get(key)
        return np.full(len(self), np.nan) if place is None else self.values[:, place]

    def has(self, key: str) -> Flags:
        """Return which records have a key [R]."""
        place = self._places.get(key)
        return np.zeros(len(self), np.bool_) if place is None else self.recorded[:, place]

    def columns(self, keys: Sequence[str]) -> Floats:
        """Return the values of the given keys that exist [R, at most len(keys)]."""
        return self.values[:, _places_of(self.keys, tuple(keys))]

    def mean(self, keys: Sequence[str]) -> tuple[Floats, Flags]:
        """Return the mean over the recorded ones of the given keys [R], and whether any was recorded [R]."""
        values, recorded = self.columns(keys), self.recorded[:, _places_of(self.keys, tuple(keys))]
        counts = recorded.sum(axis=1)
        return np.where(recorded, values, 0.0).sum(axis=1) / np.maximum(counts, 1), counts > 0

    def latest(self) -> dict[str, float]:
        """Return the last recorded value of every key."""
        return {key: float(column[has][-1]) for key, column, has in self._by_key() if has.any()}

    def _by_key(self) -> Iterator[tuple[str, Floats, Flags]]:
        return zip(self.keys, self.values.T, self.recorded.T, strict=True)

    @property
    def num_environments(self) -> int:
        """Number of environments evaluated."""
        return _count_environments(self.keys)

    @property
    def _places(self) -> dict[str, int]:
        return _places(self.keys)


# The runs of a sweep share few different sets of keys.
@lru_cache(maxsize=1024)
def _places(keys: tuple[str, ...]) -> dict[str, int]:
    return {key: place for place, key in enumerate(keys)}


@lru_cache(maxsize=1024)
def _places_of(keys: tuple[str, ...], asked: tuple[str, ...]) -> list[int]:
    return [_places(keys)[key] for key in asked if key in _places(keys)]


@lru_cache(maxsize=1024)
def _count_environments(keys: tuple[str, ...]) -> int:
    count = 0
    while f"env{count}_out_acc" in keys or f"env{count}_in_acc" in keys:
        count += 1
    return count


def concatenate(parts: Sequence[Evaluations]) -> Evaluations:
    """Concatenate consecutive evaluations of a run."""
    if len(parts) == 1:
        return parts[0]
    keys = tuple(dict.fromkeys(key for part in parts for key in part.keys))
    return Evaluations(
        np.concatenate([part.steps for part in parts]),
        np.concatenate([part.final for part in parts]),
        keys,
        np.concatenate([np.stack([part.column(key) for key in keys], axis=1) for part in parts]),
        np.concatenate([np.stack([part.has(key) for key in keys], axis=1) for part in parts]),
    )


def _is_number(value: object) -> bool:
    """Whether a value may be a measurement: a number, or null where it is missing, but not a switch."""
    return isinstance(value, _NUMBERS) and type(value) is not bool
