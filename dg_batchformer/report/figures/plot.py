"""A figure of one dataset, as the page takes it."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Plot:
    """A drawn figure.

    Args:
        title: of this figure among its neighbours. svg: an element. notes: sentences on what was left out.
        key: the rows that only a colour names.

    """

    title: str
    svg: str
    notes: Sequence[str] = ()
    key: Sequence[str] = ()


def left_out(shown: int, all_of_them: int, what: str) -> list[str]:
    """Say that a figure shows some of something only; nothing where it shows all."""
    return [f"{shown} of {all_of_them} {what}."] if shown < all_of_them else []
