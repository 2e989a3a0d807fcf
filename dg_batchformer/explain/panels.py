"""Panels of the figures: a bar chart by relation, and a matrix by domain or class."""

from collections.abc import Sequence
from itertools import product
from math import ceil, isnan, log2
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.image import AxesImage
from torch import Tensor

INK, GREY, BLUE, ORANGE = "#222222", "#9a9a9a", "#0072B2", "#D55E00"
STYLE: dict[Any, Any] = {
    "font.size": 9.5,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": "white",
}
_MOST_NUMBERS = 12  # up to this many rows, cells show their numbers
_MOST_TICKS = 40
_LEAST_REACH, _MOST_REACH = 0.3, 2.0  # limits of a ratio scale, in octaves: noise stays pale, outliers are clipped


def draw_bars(axes: Axes, names: Sequence[str], values: Sequence[float], errors: Sequence[float], form: str) -> None:
    """Draw horizontal bars from top to bottom, with standard errors and numbers; NaN means that there are no pairs."""
    heights = range(len(names))
    lengths = [0.0 if isnan(value) else value for value in values]
    whiskers = [0.0 if isnan(error) else error for error in errors]
    axes.barh(heights, lengths, height=0.62, color=BLUE, xerr=whiskers, error_kw={"ecolor": INK, "capsize": 2.5})
    room = max(*lengths, 1e-12)
    behind = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}  # keeps numbers readable on a line
    for height, value, length, whisker in zip(heights, values, lengths, whiskers, strict=True):
        text = "none" if isnan(value) else form.format(value)
        axes.text(length + whisker + 0.04 * room, height, text, va="center", bbox=behind)
    axes.set_yticks(heights, [name.replace(", ", ",\n") for name in names])
    axes.set_xlim(0, 1.3 * room)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)


def ratios(matrices: Sequence[Tensor]) -> Normalize:
    """Return a shared color scale for ratios: logarithmic, centered at 1."""
    logarithms = torch.cat([matrix.log2().abs().flatten() for matrix in matrices])
    reach = float(logarithms.nan_to_num(posinf=0.0).max())
    reach = min(max(reach, _LEAST_REACH), _MOST_REACH)
    return LogNorm(2**-reach, 2**reach)


def rising(matrices: Sequence[Tensor]) -> Normalize:
    """Return a shared color scale for matrices, starting at 0."""
    return Normalize(0, max(1e-12, *(float(matrix.nan_to_num().max()) for matrix in matrices)))


def draw_matrix(axes: Axes, names: Sequence[str], values: Tensor, norm: Normalize, form: str) -> AxesImage:
    """Draw a square matrix with named rows and columns; cells without pairs are grey."""
    axes.set_facecolor("#e6e6e6")
    colours = "RdBu_r" if isinstance(norm, LogNorm) else "YlGnBu"
    image = axes.imshow(values.numpy(), cmap=colours, norm=norm, aspect="auto")
    _draw_names(axes, names)
    if len(names) <= _MOST_NUMBERS:
        for i, j in product(range(len(names)), repeat=2):
            value = float(values[i, j])
            text = "–" if isnan(value) else form.format(value)
            red, green, blue, _ = image.cmap(norm(value))
            dark = not isnan(value) and 0.3 * red + 0.59 * green + 0.11 * blue < 0.55
            axes.text(j, i, text, ha="center", va="center", fontsize=8.5, color="white" if dark else INK)
    return image


def draw_scale(image: AxesImage, axes: Sequence[Axes], label: str) -> None:
    """Draw the color bar that the matrices share."""
    figure = axes[0].get_figure()
    assert figure is not None
    norm = image.norm
    if isinstance(norm, LogNorm):
        reach = log2(norm.vmax or 1)
        ticks = [2 ** (part * reach) for part in (-1, -0.5, 0, 0.5, 1)]
        extend = "both" if reach >= _MOST_REACH else "neither"
        bar = figure.colorbar(image, ax=list(axes), aspect=30, pad=0.015, extend=extend, extendfrac=0.02)
        bar.set_ticks(ticks, labels=[f"{tick:.2f}" for tick in ticks], minor=False)
        bar.minorticks_off()
    else:
        bar = figure.colorbar(image, ax=list(axes), aspect=30, pad=0.015)
    bar.ax.spines[:].set_visible(False)
    bar.set_label(label)


def _draw_names(axes: Axes, names: Sequence[str]) -> None:
    every = ceil(len(names) / _MOST_TICKS)
    ticks = range(0, len(names), every)
    size = 9.5 if len(names) <= 15 else 7
    shown = [names[tick] for tick in ticks]
    in_line = [name.replace("\n", " ") for name in shown]
    axes.set_xticks(ticks, in_line, rotation=40, ha="right", rotation_mode="anchor", fontsize=size, parse_math=False)
    axes.set_yticks(ticks, shown, fontsize=size, parse_math=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
