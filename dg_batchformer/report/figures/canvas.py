"""The canvas of all figures: fonts, colours, panels in a grid, and the SVG element for a page."""

import io
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any, ParamSpec

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dg_batchformer.report.figures.inline import inline
from dg_batchformer.report.looks import COLOURS, Looks

WIDE, NARROW = 9.2, 3.7
"""Inches: the text width of the page, and of a phone at the same font size."""
INK, MUTED, RULE = "#1c1d21", "#5b5f69", "#d9dbe1"
_VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule"} | {
    colour: f"--row{number}" for number, colour in enumerate(COLOURS)
}
_LABEL = 0.072  # inches, the width of a character
_LONGEST = 30  # characters of a label

STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: found, copied, read aloud
    "pdf.fonttype": 42,  # TrueType, which conferences ask for
    "text.parse_math": False,
    "path.simplify": False,
    "font.family": "DejaVu Sans",  # comes with matplotlib, and is wider than the fonts of pages
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "axes.titley": 1.0,  # fixed: matplotlib would draw every axis twice to place it
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
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
}
_Given = ParamSpec("_Given")


class Drawing(Figure):
    """A figure that notebooks show without pyplot, and that is saved as conferences ask for, with TrueType fonts."""

    def savefig(self, *arguments: Any, **options: Any) -> None:
        with matplotlib.rc_context({"pdf.fonttype": STYLE["pdf.fonttype"]}):
            super().savefig(*arguments, **options)

    def _repr_png_(self) -> bytes:
        target = io.BytesIO()
        self.savefig(target, format="png", dpi=144)
        return target.getvalue()


def styled(draw: Callable[_Given, Figure]) -> Callable[_Given, Figure]:
    """Make a function draw its figure in the style of all figures."""

    @wraps(draw)
    def _draw(*args: _Given.args, **options: _Given.kwargs) -> Figure:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **options)

    return _draw


def svg(figure: Figure, about: str) -> str:
    """Return a figure as an SVG element whose colours are variables of the style sheet.

    Args:
        figure: to be rendered.
        about: the text alternative; no two figures of a page share it.

    """
    target = io.StringIO()
    figure.patch.set_visible(False)
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": about}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the page's font has it
        FigureCanvasSVG(figure).print_svg(target, metadata={"Date": None})
    return inline(target.getvalue(), about, _VARIABLES)


@styled
def with_key(figure: Figure, rows: Iterable[str], looks: Looks) -> Figure:
    """Add a key of the distinct rows below the panels of a figure, which gets taller by it; pages have their own."""
    labels = list(dict.fromkeys(rows))
    styles: list[Any] = [looks[label] for label in labels]
    marks = [Line2D([], [], color=look.hex, linestyle=look.dash, marker=look.marker) for look in styles]
    width, height = figure.get_size_inches()
    longest = label_width(labels, width) + 0.6
    columns = max(1, min(len(labels), int(width / longest)))
    added = 0.2 * -(-len(labels) // columns) + 0.1
    places = [axes.get_position() for axes in figure.axes]
    figure.set_size_inches(width, height + added)
    for axes, place in zip(figure.axes, places, strict=True):
        shrunk = height / (height + added)
        bottom = (place.y0 * height + added) / (height + added)
        axes.set_position((place.x0, bottom, place.width, place.height * shrunk))
    figure.legend(marks, list(map(shortened, labels)), loc="lower center", ncols=columns, frameon=False, borderpad=0)
    return figure


def shortened(label: str) -> str:
    """Return a label that fits beside a panel."""
    return label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…"


def label_width(labels: Sequence[str], width: float) -> float:
    """Return the inches for the labels of rows, at most 0.45 of the figure."""
    return min(0.15 + _LABEL * max(map(len, map(shortened, labels))), 0.45 * width)


def panels(
    names: Sequence[str],
    columns: int,
    *,
    width: float,
    height: float,
    left: float = 0.45,
    right: float = 0.15,
    between: tuple[float, float] = (0.25, 0.55),
    **shared: Any,
) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure and its axes in rows, one for each name; the last row may be shorter.

    Args:
        names: titles of the panels.
        columns: at most so many side by side.
        width: of the figure in inches.
        height: of a panel in inches.
        left, right: margins in inches.
        between: inches between columns, and between rows.
        shared: ``sharex`` and ``sharey``, as ``Figure.subplots`` takes them.

    """
    columns = min(columns, len(names))
    rows = -(-len(names) // columns)
    top, bottom = 0.28, 0.42
    total = top + bottom + rows * height + (rows - 1) * between[1]
    each = (width - left - right - between[0] * (columns - 1)) / columns
    figure = Drawing(figsize=(width, total))
    grid = figure.subplots(
        rows,
        columns,
        squeeze=False,
        gridspec_kw={
            "left": left / width,
            "right": 1 - right / width,
            "top": 1 - top / total,
            "bottom": bottom / total,
            "wspace": between[0] / each,
            "hspace": between[1] / height,
        },
        **shared,
    )
    found = [list(row) for row in grid]
    for place, name in enumerate(names):
        found[place // columns][place % columns].set_title(name)
    for axes in found[-1][len(names) - (rows - 1) * columns :]:
        axes.set_visible(False)
    return figure, found
