"""Search: try hparams on some trials, choose the best by validation, and train the winner on further trials."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Search:
    """The key ``search`` of a sweep file.

    Args:
        on: trial seeds on which hparams are tried.
        repeat: trial seeds on which the winners are trained; none of them is among ``on``.
        draws: number of random draws to try; 1 if a grid lists what to try.
        selection: name of the selection method that chooses the winners.

    """

    on: Sequence[int]
    repeat: Sequence[int]
    draws: int = 1
    selection: str = "training-domain"

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Search":
        """Rebuild it from the sweep manifest."""
        return cls(tuple(content["on"]), tuple(content["repeat"]), content["draws"], content["selection"])


def further_trials(on: Sequence[int], number: int) -> tuple[int, ...]:
    """Return the first trial seeds that a search does not use."""
    return tuple([seed for seed in range(number + len(on)) if seed not in on][:number])
