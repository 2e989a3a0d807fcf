"""The three figures: attention, gradients between samples, features."""

from collections.abc import Sequence
from itertools import product, repeat
from math import nan
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from torch import Tensor

from dg_batchformer.explain.frames import View
from dg_batchformer.explain.load import Kept
from dg_batchformer.explain.measure import Measured
from dg_batchformer.explain.pairs import ITSELF, OTHERS, RELATIONS, PairMeans
from dg_batchformer.explain.panels import (
    GREY,
    INK,
    ORANGE,
    STYLE,
    draw_bars,
    draw_matrix,
    draw_scale,
    ratios,
    rising,
)

# The color-blind-safe palette of Okabe and Ito, then two colors of Tol's for datasets with ten domains.
_COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#882255", "#000000", "#999933", "#888888",
)  # fmt: skip
_MARKERS = "osD^vPX*<>ph"


def attention_picture(kept: Kept, measured: Measured) -> Figure:
    """Draw attention by relation, domain and class, one row per layer."""
    layers = len(measured.attention)
    with rc_context(STYLE):
        title = f"Who attends to whom in BatchFormer: {kept.spec.method} on {kept.spec.dataset}"
        figure, rows = _rows(kept, layers, title, f"1 = uniform attention; {_batches(kept, measured)}")
        for layer, (row, means) in enumerate(zip(rows, measured.attention, strict=True), start=1):
            bars, *matrices = row
            values = [means.mean([relation]) for relation in range(len(RELATIONS))]
            errors = [means.standard_error(relation) for relation in range(len(RELATIONS))]
            draw_bars(bars, RELATIONS, values, errors, "{:.2f}")
            bars.axvline(1, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1.5)
            bars.set(title=f"{f'Layer {layer}: ' if layers > 1 else ''}attention to ...", xlabel="times uniform")
            found = (means.by_domain, means.by_class)
            _draw_pair(kept, matrices, found, ratios(found), "{:.2f}", "attention, times uniform")
            for axes, what in zip(matrices, ("domain", "class"), strict=True):
                axes.set(title=f"by {what}", ylabel=f"a sample of this {what} ...", xlabel="... attends to")
    return figure


def gradient_picture(kept: Kept, measured: Measured) -> Figure:
    """Draw the gradient of a loss with respect to other samples' features, in percent of that to its own features."""
    behind, plain = measured.gradients, measured.plain_gradients
    unit = "% of the gradient into its own features"
    with rc_context(STYLE):
        title = f"Gradient flow between samples: {kept.spec.method} on {kept.spec.dataset}"
        about = f"{behind.share(OTHERS):.0%} of the gradient of a loss goes into the features of other samples"
        figure, [[bars, *matrices]] = _rows(kept, 1, title, f"{about}; {_batches(kept, measured)}")
        _draw_control(bars, behind, plain)
        found = tuple(_percent(behind) * matrix for matrix in (behind.by_domain, behind.by_class))
        _draw_pair(kept, matrices, found, rising(found), "{:.2f}", unit)
        for axes, what in zip(matrices, ("domain", "class"), strict=True):
            axes.set(title=f"by {what}", ylabel=f"from the loss of this {what} ...", xlabel="... into features of")
    return figure


def feature_picture(kept: Kept, points: pd.DataFrame, seen: dict[str, View]) -> Figure:
    """Draw the features of both streams on their first two principal components."""
    titles = {"plain": "plain features", "batchformer": "the same images after BatchFormer's layer"}
    with rc_context(STYLE):
        about = f"each point is one of {len(points)} images, on the first two principal components"
        about += "; names mark class means" if _are_marked(kept) else ""
        title = f"Features of held-out images: {kept.spec.method} on {kept.spec.dataset}"
        figure = _titled(13, 6.4, title, f"{about}; {_unseen(kept)}")
        for axes, (stream, view) in zip(figure.subplots(1, 2), seen.items(), strict=True):
            _draw_points(axes, kept, points, stream)
            shares = f"classes account for {view.classes:.0%} of their variance, domains for {view.domains:.0%}"
            first, second = view.projection.shares.tolist()
            axes.set(title=f"{titles[stream]}:\n{shares}", xticks=[], yticks=[])
            axes.set(xlabel=f"first component, {first:.0%} of the variance")
            axes.set(ylabel=f"second component, {second:.0%} of the variance")
        figure.legend(handles=_legend(kept), loc="outside right center", frameon=False)
    return figure


def _titled(width: float, height: float, title: str, about: str) -> Figure:
    """Return an empty figure of a size in inches, with a title and a subtitle at its top left."""
    room = 0.68
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08, rect=(0, 0, 1, 1 - room / height))
    figure = Figure(figsize=(width, height), layout=layout)
    style: dict[str, Any] = {"va": "top", "parse_math": False}
    figure.text(0.16 / width, 1 - 0.12 / height, title, fontsize=13, fontweight="bold", **style)
    figure.text(0.16 / width, 1 - 0.42 / height, about, color="#555555", **style)
    return figure


def _rows(kept: Kept, count: int, title: str, about: str) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure with three panels per row: bars, a matrix by domain, and a matrix by class."""
    wide = min(max(0.62 * len(kept.classes), 4.0), 10.0)
    figure = _titled(9.5 + wide, 0.7 + count * (3.2 + 0.35 * wide), title, about)
    return figure, figure.subplots(count, 3, squeeze=False, width_ratios=[2.6, 4.0, wide]).tolist()


def _batches(kept: Kept, measured: Measured) -> str:
    count, domains = len(measured.gradients.batches), len(kept.domains)
    return f"{count} batches of {domains} × {measured.n} held-out images; {_unseen(kept)}"


def _unseen(kept: Kept) -> str:
    return f"not trained on: {kept.spec.environment_names(kept.spec.test_envs)}"


def _domains(kept: Kept) -> list[str]:
    return [f"{name}\n(unseen)" if place in kept.unseen else name for place, name in enumerate(kept.domains)]


def _draw_pair(
    kept: Kept, axes: Sequence[Axes], found: Sequence[Tensor], norm: Normalize, form: str, label: str
) -> None:
    """Draw the matrices by domain and by class, with a shared color scale."""
    for panel, names, matrix in zip(axes, (_domains(kept), kept.classes), found, strict=True):
        image = draw_matrix(panel, names, matrix, norm, form)
    draw_scale(image, axes, label)


def _draw_control(axes: Axes, behind: PairMeans, plain: PairMeans) -> None:
    """Draw the gradient to other samples' features with BatchFormer, and write the value without it."""
    names = [RELATIONS[relation] for relation in OTHERS]
    percent = _percent(behind)
    values = [percent * behind.mean([relation]) for relation in OTHERS]
    errors = [percent * behind.standard_error(relation) for relation in OTHERS]
    draw_bars(axes, names, values, errors, "{:.2g} %")
    axes.set(title="gradient of a loss into features of ...", xlabel="% of the gradient\ninto its own features")
    rest = plain.share(OTHERS)
    control = "exactly 0" if rest == 0 else f"{rest:.1%} of the gradient"
    axes.set_ylim(len(names) + 0.2, -0.5)
    axes.text(0, len(names) - 0.1, f" without BatchFormer: {control}", va="center", fontsize=8.5, color=ORANGE)


def _percent(gradients: PairMeans) -> float:
    """Return the factor to percent of the gradient to a sample's own features; NaN if all of these are 0."""
    return 100 / (gradients.mean(ITSELF) or nan)


def _draw_points(axes: Axes, kept: Kept, points: pd.DataFrame, stream: str) -> None:
    x, y = points[f"{stream}_pc1"], points[f"{stream}_pc2"]
    markers = _markers(kept)
    points = points.assign(marker=points["class"].map(markers))
    for (place, domain), marker in product(enumerate(kept.domains), sorted(set(markers.values()))):
        rows = (points["domain"] == domain) & (points["marker"] == marker)
        colour = _COLOURS[place % len(_COLOURS)]
        faces, edges = ("none", colour) if place in kept.unseen else (colour, "white")
        axes.scatter(x[rows], y[rows], s=28, marker=marker, facecolors=faces, edgecolors=edges, linewidths=0.8)
    if _are_marked(kept):
        _draw_class_names(axes, pd.DataFrame({"x": x, "y": y}).groupby(points["class"]).mean())


def _draw_class_names(axes: Axes, means: pd.DataFrame) -> None:
    """Write the name of every class at its mean, shifted up where names would overlap."""
    low, high = axes.get_ylim()
    height = low
    style: dict[str, Any] = {"ha": "center", "va": "center", "fontweight": "bold", "parse_math": False}
    for name, x, y in means.sort_values("y").itertuples(name=None):
        height = max(y, height + 0.035 * (high - low))
        text = axes.text(x, height, name, **style)
        text.set_path_effects([withStroke(linewidth=3, foreground="white")])


def _are_marked(kept: Kept) -> bool:
    """Return whether every class has a marker of its own."""
    return len(kept.classes) <= len(_MARKERS)


def _markers(kept: Kept) -> dict[str, str]:
    """Return the marker of every class; circles for all if there are too many classes."""
    return dict(zip(kept.classes, _MARKERS if _are_marked(kept) else repeat("o"), strict=False))


def _legend(kept: Kept) -> list[Line2D]:
    handles = []
    for place, name in enumerate(_domains(kept)):
        fill = "none" if place in kept.unseen else "full"
        handles.append(_handle(name, marker="o", color=_COLOURS[place % len(_COLOURS)], fillstyle=fill))
    if not _are_marked(kept):
        return [*handles, _handle(f"({len(kept.classes)} classes, not marked)")]
    classes = (_handle(name, marker=marker, color=GREY) for name, marker in _markers(kept).items())
    return [*handles, _handle(""), *classes]


def _handle(name: str, **style: Any) -> Line2D:
    return Line2D([], [], linestyle="", label=name, **style)
