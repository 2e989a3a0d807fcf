"""Dot plots: one line per row, a panel for the average and for every environment, all on one scale.

The scale follows the dots; an arrow marks the end of an interval that goes on beyond it.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dg_batchformer.report.figures.canvas import INK, MUTED, NARROW, WIDE, label_width, panels, shortened, styled
from dg_batchformer.report.figures.frames import AVERAGE
from dg_batchformer.report.looks import Looks

_LINE = 0.19  # inches for a row
_COLUMNS = 5


@styled
def gain_figure(frame: pd.DataFrame, looks: Looks, width: float = WIDE) -> Figure:
    """Draw the gains of one dataset, see ``gain_frame``; a line marks 0."""
    named = frame.assign(name=[f"{row} over {over}" for row, over in zip(frame.row, frame.over, strict=True)])
    if frame.over.nunique() == 1:
        named = named.assign(name=frame.row)
        unit = f"points over {frame.over.iloc[0]}"
    else:
        unit = "points"
    return _dots(named, "gain", unit, looks, width, zero=True)


@styled
def accuracy_figure(frame: pd.DataFrame, looks: Looks, width: float = WIDE) -> Figure:
    """Draw the test accuracies of one dataset, see ``accuracy_frame``."""
    return _dots(frame.assign(name=frame.row), "accuracy", "accuracy (%)", looks, width, zero=False)


def _dots(frame: pd.DataFrame, value: str, unit: str, looks: Looks, width: float, *, zero: bool) -> Figure:
    names = list(dict.fromkeys(frame.name))
    places = [AVERAGE] if AVERAGE in set(frame.environment) else []
    places += [name for name in dict.fromkeys(frame.environment) if name != AVERAGE]
    left = label_width(names, width)
    columns = _COLUMNS if width > 6 else 2 if width > 5 else 1
    scale = _scale(frame, value, zero=zero)
    figure, grid = panels(
        places, columns, width=width, height=len(names) * _LINE + 0.12, left=left, between=(0.18, 0.62),
        sharex=True, sharey=True,
    )  # fmt: skip
    axes_of = dict(zip(places, [axes for line in grid for axes in line], strict=False))
    for place, axes in axes_of.items():
        axes.set_title(place, fontweight="bold" if place == AVERAGE else "normal")
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.tick_params(labelbottom=True)
        axes.xaxis.set_major_locator(MaxNLocator(4 if width > NARROW else 5, min_n_ticks=2))
        if zero:
            axes.axvline(0, color=MUTED, linewidth=0.9)
        for mark in frame[frame.environment == place].to_dict("records"):
            look, height = looks[mark["row"]], names.index(mark["name"])
            if np.isfinite(mark["low"]) and np.isfinite(mark["high"]):
                axes.plot([mark["low"], mark["high"]], [height, height], color=look.hex, linewidth=1.6)
                if mark["low"] < scale[0]:
                    axes.plot(scale[0], height, "<", color=look.hex, markersize=4)
                if mark["high"] > scale[1]:
                    axes.plot(scale[1], height, ">", color=look.hex, markersize=4)
            axes.plot(mark[value], height, look.marker, color=look.hex)
    first = grid[0][0]
    first.set_ylim(len(names) - 0.4, -0.6)
    first.set_yticks(range(len(names)), [shortened(name) for name in names], color=INK)
    for line in grid:
        line[0].tick_params(axis="y", labelcolor=INK)
    grid[-1][0].set_xlabel(unit)
    margin = 0.05 * (scale[1] - scale[0])
    first.set_xlim(scale[0] - margin, scale[1] + margin)
    return figure


def _scale(frame: pd.DataFrame, value: str, *, zero: bool) -> tuple[float, float]:
    """Return the ends of the scale: those of the intervals, up to the spread of the dots beyond the outermost dots.

    It spans at least 2 points, and around 0 some of them to either side.
    """
    dots = frame[value].to_numpy(float)
    dots = dots[np.isfinite(dots)] if np.isfinite(dots).any() else np.zeros(1)
    spread = max(2.0, float(np.ptp(dots)))
    ends = np.concatenate([dots, frame[["low", "high"]].to_numpy(float).ravel()])
    ends = np.clip(ends[np.isfinite(ends)], dots.min() - spread, dots.max() + spread)
    extra = max(0.0, 2 - float(np.ptp(ends))) / 2
    low, high = float(ends.min()) - extra, float(ends.max()) + extra
    if zero:
        return min(low, -0.15 * (high - low)), max(high, 0.15 * (high - low))
    return low, high


@styled
def selection_figure(frame: pd.DataFrame, looks: Looks, width: float = WIDE) -> Figure:
    """Draw the average test accuracy of every row, a panel for each selection method; see ``selection_frame``."""
    return _dots(
        frame.assign(name=frame.row, environment=frame.selection, low=np.nan, high=np.nan),
        "accuracy", "average accuracy (%)", looks, width, zero=False,
    )  # fmt: skip
