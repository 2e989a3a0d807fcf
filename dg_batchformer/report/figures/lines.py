"""Line plots over training steps: accuracy curves, and SWAD's loss valley."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dg_batchformer.report.figures.canvas import INK, MUTED, WIDE, label_width, panels, shortened, styled
from dg_batchformer.report.looks import Looks

_SAME = 0.05  # points within which curves coincide
_LINE = 0.155  # inches between labels


@styled
def curves_figure(frame: pd.DataFrame, looks: Looks, width: float = WIDE) -> Figure:
    """Draw validation and test accuracy over steps, from step 0; see ``curve_frame``.

    Where two curves coincide, the later row is dashed over the earlier one. A thick bar spans averaged updates.
    """
    rows, envs = list(dict.fromkeys(frame.row)), list(dict.fromkeys(frame.environment))
    columns = min(4, len(envs)) if width > 6 else 1
    chunks = [envs[begin : begin + columns] for begin in range(0, len(envs), columns)]
    order = [(env, split) for chunk in chunks for split in ("validation", "test") for env in _filled(chunk, columns)]
    labels = label_width(rows, width)
    figure, grid = panels(
        [f"{env}: {split}" if env else "" for env, split in order], columns, width=width,
        height=max(1.15, _LINE * len(rows)), right=labels + 0.1, between=(0.2, 0.5), sharex=True, sharey="row",
    )  # fmt: skip
    cells = [axes for line in grid for axes in line]
    for axes, (env, split) in zip(cells, order, strict=True):
        axes.set_visible(bool(env))
        of_panel = frame[(frame.environment == env) & (frame.split == split)]
        _draw_curves(axes, of_panel, looks)
    for place, line in enumerate(grid):
        line[0].set_ylabel("accuracy (%)")
        line[0].set_xlim(left=0)
        env, split = [one for one in order[place * columns : (place + 1) * columns] if one[0]][-1]
        last = [axes for axes in line if axes.get_visible()][-1]
        ends = frame[(frame.environment == env) & (frame.split == split) & (frame.model == "trained")]
        inches = last.get_position().height * figure.get_figheight()
        _label(last, ends.groupby("row", sort=False).last(), looks, inches=inches)
    for axes in grid[-1]:
        axes.set_xlabel("step")
    return figure


def _filled(chunk: Sequence[str], columns: int) -> list[str]:
    return [*chunk, *[""] * (columns - len(chunk))]


def _draw_curves(axes: Axes, frame: pd.DataFrame, looks: Looks) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    drawn: list[np.ndarray] = []
    for row, of_row in frame.groupby("row", sort=False):
        look, trained = looks[str(row)], of_row[of_row.model == "trained"]
        values = trained.accuracy.to_numpy()
        again = any(len(values) == len(other) and np.allclose(values, other, atol=_SAME) for other in drawn)
        drawn.append(values)
        axes.plot(trained.step, values, color=look.hex, linestyle=(0, (3, 3)) if again else look.dash)
        if trained.error.any():
            low, high = values - trained.error, values + trained.error
            axes.fill_between(trained.step, low, high, color=look.hex, alpha=0.14, linewidth=0)
        for window in of_row[of_row.model == "averaged"].to_dict("records"):
            steps, accuracy = [window["step"], window["to_step"]], [window["accuracy"]] * 2
            axes.plot(steps, accuracy, color=look.hex, linewidth=2.6, solid_capstyle="butt")


def _label(axes: Axes, ends: pd.DataFrame, looks: Looks, *, inches: float) -> None:
    """Name the curves at their right ends, with labels moved apart, in a panel of a height in inches."""
    ends = ends[np.isfinite(ends.accuracy)].sort_values("accuracy")
    if not len(ends):
        return
    low, high = axes.get_ylim()
    places = (ends.accuracy.to_numpy() - low) / (high - low) * inches
    for place in range(1, len(places)):
        places[place] = max(places[place], places[place - 1] + _LINE)
    places -= max(0.0, (places[-1] - inches) if len(places) > 1 else 0.0)
    for place in reversed(range(len(places) - 1)):
        places[place] = min(places[place], places[place + 1] - _LINE)
    for (row, accuracy), place in zip(ends.accuracy.items(), places / inches, strict=True):
        end = (accuracy - low) / (high - low)
        colour = looks[str(row)].hex
        axes.plot([1.0, 1.03], [end, place], transform=axes.transAxes, color=colour, linewidth=1.2, clip_on=False)
        axes.text(1.045, place, shortened(str(row)), transform=axes.transAxes, va="center", color=INK)


@styled
def valley_figure(frame: pd.DataFrame, looks: Looks, width: float = WIDE) -> Figure:
    """Draw the validation loss, the averaged updates and the threshold, a panel by row and environment."""
    pairs = list(dict.fromkeys(zip(frame.row, frame.environment, strict=True)))
    titles = [f"{shortened(row)}: {env}" for row, env in pairs]
    columns = (4 if width > 6 else 2 if width > 5 else 1) if len(pairs) > 1 else 1
    figure, grid = panels(
        titles, columns, width=width, height=1.0, left=0.5, between=(0.2, 0.42), sharex=True, sharey=True
    )
    for axes, (row, env) in zip([axes for line in grid for axes in line], pairs, strict=False):
        of_panel, colour = frame[(frame.row == row) & (frame.environment == env)], looks[row].hex
        axes.plot(of_panel.step, of_panel.loss, color=colour)
        window = of_panel.iloc[0]
        if np.isfinite(window.averaged_from):
            axes.axvspan(window.averaged_from, window.averaged_to, color=colour, alpha=0.18, linewidth=0)
        if np.isfinite(window.threshold):
            axes.axhline(window.threshold, color=MUTED, linewidth=1, linestyle="dashed")
        axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlim(left=0)
    for line in grid:
        line[0].set_ylabel("loss")
    for axes in grid[-1]:
        axes.set_xlabel("step")
    return figure
