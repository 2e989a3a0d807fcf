"""Color, marker and line style of each row, the same in every figure.

The eight colors can be told apart by color-blind readers (after Okabe and Ito); the style sheet defines them for light
and dark pages. Further rows repeat the colors with other markers and line styles.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

COLOURS = ("#0072b2", "#cf5500", "#00805c", "#b0478f", "#2b8fbb", "#a07400", "#6e6e76", "#7b3b2e")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
_DASHES = ("solid", "dashed", "dotted", "dashdot")


class Look(NamedTuple):
    """Style of a row in figures.

    Args:
        colour: index in ``COLOURS`` and in the style sheet.
        marker, dash: marker and line style of matplotlib.

    """

    colour: int
    marker: str
    dash: str

    @property
    def hex(self) -> str:
        """The colour on light backgrounds."""
        return COLOURS[self.colour]


Looks = Mapping[str, Look]


def looks(labels: Sequence[str]) -> Looks:
    """Return the style of every row."""
    return {
        label: Look(
            place % len(COLOURS),
            _MARKERS[(place + place // len(COLOURS)) % len(_MARKERS)],
            _DASHES[place // len(COLOURS) % len(_DASHES)],
        )
        for place, label in enumerate(labels)
    }
