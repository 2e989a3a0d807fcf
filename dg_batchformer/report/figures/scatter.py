"""Scatter plots: in-domain against out-of-domain accuracy, and random draws of hparams."""

from collections.abc import Callable, Sequence
from math import floor, log10
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from dg_batchformer.report.figures.canvas import INK, MUTED, WIDE, panels, shortened, styled
from dg_batchformer.report.looks import Looks

_LINE = 0.17  # inches of a line of the legend
_MOST_PANELS = 16
_MOST_DOTS = 240  # of a panel
_FEW = 5  # integers up to which each is named on the axis
_SPREAD, _LONG_SPREAD = 20, 300  # largest over smallest value: the axis is logarithmic; it names powers of ten only


@styled
def transfer_figure(frame: pd.DataFrame, looks: Looks, width: float = WIDE) -> Figure:
    """Draw in-domain against test accuracy in one panel with the diagonal; a mark for every row and environment."""
    rows = list(dict.fromkeys(frame.row))
    side = min(width - 0.6, 3.6)
    figure, [[axes]] = panels(["test environments by row"], 1, width=width, height=side, left=0.5,
                              right=width - 0.5 - side)  # fmt: skip
    for row, points in frame.groupby("row", sort=False):
        look = looks[str(row)]
        axes.plot(points.in_domain, points.test, look.marker, color=look.hex, alpha=0.85, label=shortened(str(row)))
    low = min(frame.in_domain.min(), frame.test.min()) - 2
    high = max(frame.in_domain.max(), frame.test.max()) + 2
    axes.set(xlim=(low, high), ylim=(low, high), xlabel="in-domain accuracy (%)", ylabel="test accuracy (%)")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.plot([low, high], [low, high], color=MUTED, linewidth=0.9, linestyle="dashed")
    _name_environments(axes, frame, (high - low) / side)
    _legend(figure, axes, rows, width, side)
    return figure


def _name_environments(axes: Axes, frame: pd.DataFrame, unit: float) -> None:
    """Write every environment once, left of its marks, with names moved apart; ``unit`` is points per inch."""
    ends = frame.groupby("environment", sort=False).agg(x=("in_domain", "min"), y=("test", "mean")).sort_values("y")
    place = float("-inf")
    for name, end in ends.to_dict("index").items():
        place = max(end["y"], place + _LINE * unit)
        axes.text(end["x"] - 0.12 * unit, place, shortened(str(name)), va="center", ha="right", color=MUTED)


def _legend(figure: Figure, axes: Axes, rows: Sequence[str], width: float, side: float) -> None:
    """Name the rows: right of the panel if there is room, else below it."""
    if width - side > 2:
        axes.legend(loc="upper left", bbox_to_anchor=(1.03, 1), frameon=False, labelcolor=INK)
        return
    height = figure.get_figheight() + _LINE * len(rows) + 0.1
    position, extra = axes.get_position(), height - figure.get_figheight()
    figure.set_figheight(height)
    old = height - extra
    bottom, tall = (position.y0 * old + extra) / height, position.height * old / height
    axes.set_position((position.x0, bottom, position.width, tall))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 0), bbox_transform=figure.transFigure, frameon=False,
                labelcolor=INK, labelspacing=0.25)  # fmt: skip


@styled
def draws_figure(frame: pd.DataFrame, looks: Looks, width: float = WIDE) -> Figure:
    """Draw validation accuracy against the value of every drawn hparam; see ``draw_frame``."""
    names = list(dict.fromkeys(frame.hparam))[:_MOST_PANELS]
    columns = 4 if width > 6 else 2 if width > 5 else 1
    figure, grid = panels(names, columns, width=width, height=1.2, left=0.5, between=(0.25, 0.6), sharey=True)
    for axes, name in zip([axes for line in grid for axes in line], names, strict=False):
        _draw_hparam(axes, frame[frame.hparam == name], looks)
    for line in grid:
        line[0].set_ylabel("validation (%)")
    return figure


def _draw_hparam(axes: Axes, frame: pd.DataFrame, looks: Looks) -> None:
    stride = -(-len(frame) // _MOST_DOTS)
    rows = list(dict.fromkeys(frame.row))
    places = _few_places(axes, list(frame.value), rows) or _many_places(axes, list(frame.value))
    for row, of_row in frame.groupby("row", sort=False):
        dots = of_row.iloc[::stride]
        x, look = [places(str(row), value) for value in dots.value], looks[str(row)]
        axes.plot(x, dots.accuracy, look.marker, color=look.hex, alpha=0.65, markeredgewidth=0)


Places = Callable[[str, Any], float]  # (row, value) -> place on the axis


def _few_places(axes: Axes, values: Sequence[Any], labels: Sequence[str]) -> Places | None:
    """Set up an axis of names, with the rows side by side at each; None for many values, or fractions."""
    kinds = {type(value) for value in values}
    if kinds <= {int, float} and (float in kinds or len(set(values)) > _FEW):
        return None
    names = [str(value) for value in sorted(set(values), key=None if kinds == {int} else str)]
    axes.set_xticks(range(len(names)), [shortened(name) for name in names])
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.grid(axis="x", visible=False)
    return lambda label, value: names.index(str(value)) + 0.6 * ((labels.index(label) + 0.5) / len(labels) - 0.5)


def _many_places(axes: Axes, values: Sequence[float]) -> Places:
    """Set up an axis of numbers, logarithmic if they span orders of magnitude; 0 is left of these."""
    least = min((value for value in values if value > 0), default=0)
    spread = max(values) / least if least else 0
    if min(values) < 0 or spread < _SPREAD:
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}".replace("-", "−")))
    else:
        subs = (1.0, 3.0) if spread < _LONG_SPREAD else (1.0,)
        if 0 in values:
            axes.set_xscale("symlog", linthresh=least)
        else:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _number(value)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    return lambda label, value: value


def _number(value: float) -> str:
    """Format a number of one digit: 0.3, 300, 3·10⁻⁵."""
    if value == 0 or 0.01 <= value < 10_000:
        return f"{value:g}"
    exponent = floor(log10(value) + 1e-9)
    digit = round(value / 10.0**exponent)
    power = "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return power if digit == 1 else f"{digit}·{power}"
