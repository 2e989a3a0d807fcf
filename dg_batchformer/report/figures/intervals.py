"""Means with standard errors: rows from top to bottom, a panel for each environment and one for the average."""

from collections.abc import Mapping, Sequence
from math import isfinite
from statistics import fmean, pstdev

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dg_batchformer.report.figures.svg import INK, MUTED, ROWS, WIDTH, dots, panels_in_lines
from dg_batchformer.report.looks import Looks

_COLUMNS = 5
_LINE = 0.17  # inches, height of a row
_NARROWEST = 2.0  # percentage points, the least span of a panel
_LONGEST = 30  # characters, of a label

Values = Mapping[str, Mapping[str, Sequence[float]]]  # panel -> row -> values of trials


def height(panels: int, rows: int) -> float:
    """Return the height of a figure in inches."""
    lines = -(-panels // _COLUMNS)
    return lines * (rows * _LINE + 0.3) + (lines - 1) * 0.3 + 0.7


def draw_intervals(figure: Figure, values: Values, looks: Looks, unit: str, *, zero: bool = False) -> None:
    """Draw mean and standard error over trials, with single trials as faint dots behind them.

    Args:
        zero: draw a line at 0.

    """
    rows = list(looks)
    names = [label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…" for label in rows]
    left = min(0.2 + 0.068 * max(map(len, names)), 0.3 * WIDTH)
    for _, line in panels_in_lines(figure, list(values), _COLUMNS, left=left, between=(0.2, 0.6), sharey=True):
        for axes, panel in line:
            axes.set_title(panel, fontweight="bold" if panel == "Average" else "normal")
            axes.set_xlabel(unit)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=2))
            axes.grid(axis="y", visible=False)
            axes.set_ylim(len(rows) - 0.4, -0.6)
            axes.set_yticks(range(len(rows)), names, color=INK)
            axes.spines["left"].set_visible(False)
            if zero:
                axes.axvline(0, color=MUTED, linewidth=0.9)
            for place, label in enumerate(rows):
                found = values[panel].get(label, ())
                if found and all(map(isfinite, found)):
                    colour = ROWS[looks[label].colour]
                    dots(axes, found, [place] * len(found), colour, 2.6, 0.4)
                    error = [pstdev(found) / len(found) ** 0.5] if len(found) > 1 else None
                    axes.errorbar([fmean(found)], [place], xerr=error, fmt=looks[label].marker, color=colour)
            low, high = axes.get_xlim()
            widen = max(0.0, _NARROWEST - (high - low)) / 2
            axes.set_xlim(low - widen, high + widen)
