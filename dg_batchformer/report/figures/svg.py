"""The canvas of all figures: their style, their colours, panels in rows and columns."""

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

# Colours that stand for variables of the style sheet.
INK, MUTED, RULE = "#010000", "#010001", "#010002"
ROWS = [f"#0200{number:02x}" for number in range(COLOURS)]
_VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule"} | {
    colour: f"--row{number}" for number, colour in enumerate(ROWS)
}

_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: found, copied, read aloud
    "text.parse_math": False,
    "path.simplify": False,
    "font.family": "DejaVu Sans",  # comes with matplotlib; wider than what pages show, so what fits here fits there
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
    """Return what is drawn as an SVG element.

    Args:
        about: what it shows, for who does not see it; no two figures of a page share it.
        height: in inches.

    """
    target = io.StringIO()
    style = {**_STYLE, "svg.hashsalt": about}  # names inside differ from figure to figure
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the page's font draws it
        figure = Figure(figsize=(WIDTH, height))
        draw(figure)
        FigureCanvasSVG(figure).print_svg(target, metadata={"Date": None})
    return inline(target.getvalue(), about, _VARIABLES)


def grid(
    figure: Figure, rows: int, columns: int, *, left: float, between: tuple[float, float], **shared: Any
) -> list[list[Axes]]:
    """Return axes in rows and columns.

    Args:
        left: inches for the labels of rows. between: inches between columns, and between rows.

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
    """Yield the lines of a grid with a panel for each name: the first axes, and all axes that have a name."""
    lines = list(chunks(names, columns))
    for of_line, on_line in zip(grid(figure, len(lines), len(lines[0]), **of_grid), lines, strict=True):
        for axes in of_line[len(on_line) :]:
            axes.set_visible(False)
        yield of_line[0], list(zip(of_line, on_line, strict=False))


def dots(axes: Axes, x: Sequence[float], y: Sequence[float], colour: str, size: float, alpha: float) -> None:
    """Draw many points as one path of lines without length, whose round ends are the points: a tenth of the bytes."""
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
    """Yield items in rows of a size."""
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]


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
