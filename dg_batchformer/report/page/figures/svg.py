"""From a matplotlib figure to SVG that lives inside a page: small, nothing loaded, colours left to the style sheet."""

import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from dg_batchformer.report.page.looks import COLOURS

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
    target = io.BytesIO()
    style = {**_STYLE, "svg.hashsalt": about}  # names inside differ from figure to figure
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the page's font draws it
        figure = Figure(figsize=(WIDTH, height))
        draw(figure)
        FigureCanvasSVG(figure).print_svg(target, metadata={"Date": None})
    return _inline(target.getvalue(), about)


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


def _inline(document: bytes, about: str) -> str:
    root = ElementTree.fromstring(document)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.tail = None if element.tag != "text" else element.tail
        if element.tag != "text":
            element.text = None
        element.attrib = _attributes(element)
    _unwrap(root)
    root.attrib = {"viewBox": root.attrib["viewBox"], "class": "plot", "role": "img", "aria-label": about}
    return ElementTree.tostring(root, encoding="unicode")


def _attributes(element: Element) -> dict[str, str]:
    kept = {}
    for name, value in element.attrib.items():
        name = name.rpartition("}")[2]
        if (name == "id" and element.tag in ("g", "svg")) or (name == "transform" and value.startswith("rotate(-0 ")):
            continue
        if name in ("d", "x", "y", "transform", "width", "height", "points"):
            value = re.sub(r"-?\d+\.\d+", _rounded, value).replace("\n", "").strip()
        if name == "style":
            value = re.sub(r"#0[12]00[0-9a-f]{2}", lambda found: f"var({_VARIABLES[found[0]]})", value)
            value = re.sub(r" ?font-family: [^;]*(;|$)", "", value)
        kept[name] = value
    return kept


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")


def _unwrap(element: Element) -> None:
    """Leave out what only gives matplotlib's parts a name, and what is of no use in a page."""
    children: list[Element] = []
    for child in element:
        if child.tag in ("metadata", "style"):
            continue
        _unwrap(child)
        _share_style(child)
        children += list(child) if child.tag == "g" and not child.attrib else [child]
    element[:] = [child for child in children if child.tag != "defs" or len(child)]


def _share_style(group: Element) -> None:
    """Say once what many marks have in common."""
    styles = {mark.attrib.get("style") for mark in group if mark.tag == "use"}
    if group.tag == "g" and len(group) > 1 and len(styles) == 1 and all(mark.tag == "use" for mark in group):
        group.set("style", styles.pop() or "")
        for mark in group:
            mark.attrib.pop("style", None)


def chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Yield items in rows of a size."""
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]
