"""How a row looks, the same in every figure: one of eight colours, a marker, a dash.

The colours stay apart for colour-blind eyes (after Okabe & Ito), and the style sheet holds them, one set for light and
one for dark pages. Rows beyond the eighth repeat colours with other markers and dashes.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

COLOURS = 8
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
_DASHES = ("solid", "dashed", "dotted", "dashdot")


class Look(NamedTuple):
    """How a row is drawn.

    Args:
        colour: its number in the style sheet. marker, dash: as matplotlib names them.

    """

    colour: int
    marker: str
    dash: str


Looks = Mapping[str, Look]


def looks(labels: Sequence[str]) -> Looks:
    """Give every row its look."""
    return {
        label: Look(
            place % COLOURS,
            _MARKERS[(place + place // COLOURS) % len(_MARKERS)],
            _DASHES[place // COLOURS % len(_DASHES)],
        )
        for place, label in enumerate(labels)
    }
