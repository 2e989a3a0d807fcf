"""Drawing functions of all figures: style, colors, and panels in rows and columns."""

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from dg_batchformer.report.figures.inline import inline
from dg_batchformer.report.looks import COLOURS

WIDTH = 9.2  # inches, of every figure

# Placeholder colors that are replaced with variables of the style sheet.
INK, MUTED, RULE = "#010000", "#010001", "#010002"
ROWS = [f"#0200{number:02x}" for number in range(COLOURS)]
_VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule"} | {
    colour: f"--row{number}" for number, colour in enumerate(ROWS)
}

_STYLE: Any = {
    "svg.fonttype": "none",  # keep text as text: searchable, and readable by screen readers
    "text.parse_math": False,
    "path.simplify": False,
    "font.family": "DejaVu Sans",  # comes with matplotlib; wider than fonts of browsers, so that labels fit there
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "text.color": INK,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "figure.facecolor": "none",
}


def render(about: str, height: float, draw: Callable[[Figure], None]) -> str:
    """Return a figure as an SVG element.

    Args:
        about: text alternative for screen readers; unique on the page.
        height: height in inches.
        draw: function that draws into the figure.

    """
    target = io.StringIO()
    style = {**_STYLE, "svg.hashsalt": about}  # element ids differ between figures
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the browser's font has it
        figure = Figure(figsize=(WIDTH, height))
        draw(figure)
        FigureCanvasSVG(figure).print_svg(target, metadata={"Date": None})
    return inline(target.getvalue(), about, _VARIABLES)


def grid(
    figure: Figure, rows: int, columns: int, *, left: float, between: tuple[float, float], **shared: Any
) -> list[list[Axes]]:
    """Return axes in rows and columns.

    Args:
        left: inches for the labels of rows.
        between: inches between columns, and between rows.
        shared: ``sharex`` and ``sharey`` of matplotlib.

    """
    height = figure.get_figheight()
    top, bottom, right = 0.28, 0.42, 0.2
    width = (WIDTH - left - right - between[0] * (columns - 1)) / columns
    tall = (height - top - bottom - between[1] * (rows - 1)) / rows
    axes = figure.subplots(
        rows,
        columns,
        squeeze=False,
        gridspec_kw={
            "left": left / WIDTH,
            "right": 1 - right / WIDTH,
            "top": 1 - top / height,
            "bottom": bottom / height,
            "wspace": between[0] / width,
            "hspace": between[1] / tall,
        },
        **shared,
    )
    return [list(row) for row in axes]


def panels_in_lines(
    figure: Figure, names: Sequence[Any], columns: int, **of_grid: Any
) -> Iterator[tuple[Axes, list[tuple[Axes, Any]]]]:
    """Yield for each line of a grid its first axes, and (axes, name) of each panel."""
    lines = list(chunks(names, columns))
    for of_line, on_line in zip(grid(figure, len(lines), len(lines[0]), **of_grid), lines, strict=True):
        for axes in of_line[len(on_line) :]:
            axes.set_visible(False)
        yield of_line[0], list(zip(of_line, on_line, strict=False))


def dots(axes: Axes, x: Sequence[float], y: Sequence[float], colour: str, size: float, alpha: float) -> None:
    """Draw many points as one path of zero-length lines with round caps; the SVG is ten times smaller."""
    points = np.array([[x, y], [x, y]], dtype=float).transpose(2, 0, 1).reshape(-1, 2)  # each twice
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return
    codes = [Path.MOVETO, Path.LINETO] * (len(points) // 2)
    axes.add_patch(
        PathPatch(Path(points, codes), fill=False, edgecolor=colour, linewidth=size, capstyle="round", alpha=alpha)
    )
    axes.update_datalim(points)
    axes.autoscale_view()


def chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Yield consecutive slices of ``size`` items; the last may be shorter."""
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]


@dataclass(frozen=True)
class Plot:
    """A finished figure.

    Args:
        title: title within its section.
        svg: SVG element.
        notes: sentences on what was left out.
        key: rows to show in a legend.

    """

    title: str
    svg: str
    notes: Sequence[str] = ()
    key: Sequence[str] = ()


def left_out(shown: int, all_of_them: int, what: str) -> list[str]:
    """Return a note if a figure shows only some of all items, else an empty list."""
    return [f"{shown} of {all_of_them} {what}."] if shown < all_of_them else []
