"""Shapes: a built-in dataset of seven shapes drawn in four styles, 32 px, with a genuine domain gap."""

from collections.abc import Callable, Sequence
from colorsys import hsv_to_rgb
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

from dg_batchformer.datasets.base import Dataset, TensorEnvironment
from dg_batchformer.seeds import seed_hash

_CLASSES = ("circle", "cross", "heart", "moon", "square", "star", "triangle")
_PER_CLASS = 60
_COLOURED = 0.8  # share of shapes whose hue is determined by the class, differently in every style
_SIZE, _CANVAS = 32, 96  # drawn at three times the size, then averaged: smooth edges
_Points = list[tuple[float, float]]


class Shapes(Dataset):
    """4 styles (photo, painting, cartoon, sketch) x 7 shapes x 60 images, uint8 (3, 32, 32).

    Position, size and rotation vary within every style. Color is a spurious feature: in the styles that have color,
    the hue of four in five shapes is determined by the class, by a different rule in each style. No augmentation.
    """

    def __init__(self, root: Path | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        super().__init__(root, test_envs, hparams)
        self.classes = list(_CLASSES)
        drawn = {style: _draw_style(style) for style in self.facts.names}
        self.environments = [TensorEnvironment(style, images, labels) for style, (images, labels) in drawn.items()]


@cache
def _draw_style(style: str) -> tuple[Tensor, Tensor]:
    rng = np.random.RandomState(seed_hash("Shapes", style))
    images = []
    palette = rng.permutation(len(_CLASSES)) / len(_CLASSES)
    for label, name in enumerate(_CLASSES):
        for _ in range(_PER_CLASS):
            canvas = _STYLES[style](rng, _placed(rng, name), _shape_colour(rng, palette[label]))
            small = canvas.resize((_SIZE, _SIZE), Image.Resampling.BOX)
            images.append(torch.from_numpy(np.array(small)).permute(2, 0, 1))
    labels = torch.arange(len(_CLASSES)).repeat_interleave(_PER_CLASS)
    return torch.stack(images), labels


def _outline(name: str) -> np.ndarray:
    """Return the corners of a shape of radius about 1: (corners, 2), with y pointing down."""
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    if name == "circle":
        return np.stack([np.cos(turn), np.sin(turn)], axis=1)
    if name == "heart":
        x = np.sin(turn) ** 3
        y = (13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)) / 16
        return np.stack([x, -y], axis=1)
    if name == "moon":
        outer, inner = np.linspace(0.9, 5.38, 24), np.linspace(4.9, 1.38, 16)
        arcs = [
            np.stack([np.cos(outer), np.sin(outer)], 1),
            np.stack([np.cos(inner) * 0.8 + 0.5, np.sin(inner) * 0.8], 1),
        ]
        return np.concatenate(arcs)
    if name == "star":
        radius = np.where(np.arange(10) % 2, 0.42, 1.1)
        angle = np.arange(10) * np.pi / 5 - np.pi / 2
        return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    if name == "cross":
        a, b = 0.35, 1.0
        corners = [
            (-a, -b),
            (a, -b),
            (a, -a),
            (b, -a),
            (b, a),
            (a, a),
            (a, b),
            (-a, b),
            (-a, a),
            (-b, a),
            (-b, -a),
            (-a, -a),
        ]
        return np.array(corners)
    if name == "square":
        return np.array([(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)])
    return np.array([(0, -1.05), (1.0, 0.75), (-1.0, 0.75)])  # triangle


def _placed(rng: np.random.RandomState, name: str) -> _Points:
    angle, radius = rng.uniform(-0.45, 0.45), rng.uniform(0.22, 0.38) * _CANVAS
    centre = _CANVAS * (0.5 + rng.uniform(-0.1, 0.1, size=2))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stretched = _outline(name) * rng.uniform(0.85, 1.15, size=2)
    return [(float(x), float(y)) for x, y in stretched @ rotation.T * radius + centre]


_Colour = tuple[int, int, int]


def _colour(rng: np.random.RandomState, low: int = 0, high: int = 256) -> _Colour:
    red, green, blue = (int(value) for value in rng.randint(low, high, size=3))
    return red, green, blue


def _shape_colour(rng: np.random.RandomState, palette: float) -> _Colour:
    """Draw a random color for a shape; most have the hue of their class in this style."""
    hue = palette + rng.normal(0, 0.02) if rng.uniform() < _COLOURED else rng.uniform()
    red, green, blue = hsv_to_rgb(hue % 1, rng.uniform(0.6, 1), rng.uniform(0.5, 1))
    return int(255 * red), int(255 * green), int(255 * blue)


def _contrasting(rng: np.random.RandomState, shape: _Colour, contrast: int) -> _Colour:
    """Draw a random background color whose brightness differs from the shape's by at least ``contrast``."""
    while True:
        background = _colour(rng)
        if abs(sum(background) - sum(shape)) >= 3 * contrast:
            return background


def _mask(points: _Points) -> Image.Image:
    mask = Image.new("L", (_CANVAS, _CANVAS))
    ImageDraw.Draw(mask).polygon(points, fill=255)
    return mask


def _shaded(rng: np.random.RandomState, colour: _Colour) -> Image.Image:
    """Draw a surface of one color under slanted light."""
    slope_y, slope_x = rng.uniform(-0.4, 0.4, size=2)
    y, x = np.mgrid[-1 : 1 : _CANVAS * 1j, -1 : 1 : _CANVAS * 1j]
    light = 1 + slope_y * y + slope_x * x
    return Image.fromarray(np.clip(light[..., None] * np.array(colour), 0, 255).astype(np.uint8))


def _photo(rng: np.random.RandomState, points: _Points, colour: _Colour) -> Image.Image:
    """Draw lit surfaces with soft edges, a shadow and sensor noise."""
    background, shape = _shaded(rng, _contrasting(rng, colour, 40)), _shaded(rng, colour)
    shadow = _mask([(x + 5, y + 6) for x, y in points]).filter(ImageFilter.GaussianBlur(5))
    image = Image.composite(background.point(lambda value: value * 0.55), background, shadow)
    image = Image.composite(shape, image, _mask(points).filter(ImageFilter.GaussianBlur(1.5)))
    noisy = np.asarray(image) + rng.normal(0, 14, size=(_CANVAS, _CANVAS, 1)).repeat(3, axis=2)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def _strokes(rng: np.random.RandomState, colour: _Colour, count: int) -> Image.Image:
    """Draw a surface of broad strokes in tones of one color."""
    image = Image.new("RGB", (_CANVAS, _CANVAS), colour)
    draw = ImageDraw.Draw(image)
    starts = rng.uniform(0, _CANVAS, size=(count, 2))
    angles = rng.uniform(0, np.pi) + rng.normal(0, 0.4, size=count)
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    ends = starts + directions * rng.uniform(8, 22, size=(count, 1))
    tones = np.clip(np.array(colour) + rng.normal(0, 26, size=(count, 3)), 0, 255).astype(int)
    for line, tone, width in zip(np.hstack([starts, ends]), tones, rng.randint(4, 9, size=count), strict=True):
        draw.line(line.tolist(), fill=tuple(tone.tolist()), width=int(width))
    return image


def _painting(rng: np.random.RandomState, points: _Points, colour: _Colour) -> Image.Image:
    """Draw brush strokes over and around a ragged shape."""
    ragged = [(x + rng.normal(0, 1.5), y + rng.normal(0, 1.5)) for x, y in points]
    background, shape = _strokes(rng, _contrasting(rng, colour, 50), 140), _strokes(rng, colour, 140)
    return Image.composite(shape, background, _mask(ragged))


def _cartoon(rng: np.random.RandomState, points: _Points, colour: _Colour) -> Image.Image:
    """Draw a squashed shape in flat colors with a thick outline on stripes."""
    light, dark = _colour(rng, 120, 256), _colour(rng, 20, 200)
    image = Image.new("RGB", (_CANVAS, _CANVAS), light)
    draw = ImageDraw.Draw(image)
    period, slant = int(rng.randint(14, 26)), int(rng.randint(-60, 61))
    for x in range(-_CANVAS, 2 * _CANVAS, period):
        draw.line([(x, 0), (x + slant, _CANVAS)], fill=dark, width=period // 2)
    across, along = rng.uniform(0.7, 1.25, size=2)
    centre = np.mean(points, axis=0)
    squashed = [(float(x), float(y)) for x, y in (np.array(points) - centre) * (across, along) + centre]
    draw.polygon(squashed, fill=colour)
    draw.line([*squashed, squashed[0], squashed[1]], fill=_colour(rng, 0, 64), width=6, joint="curve")
    return image


def _sketch(rng: np.random.RandomState, points: _Points, colour: _Colour) -> Image.Image:
    """Draw thin, shaky, broken pencil lines over hatching on paper, without color."""
    paper, pencil = int(rng.randint(215, 256)), int(rng.randint(30, 110))
    image = Image.new("RGB", (_CANVAS, _CANVAS), (paper, paper, paper))
    draw = ImageDraw.Draw(image)
    slant, spacing = int(rng.randint(-70, 71)), int(rng.randint(9, 16))
    for x in range(-_CANVAS, 2 * _CANVAS, spacing):
        tone = int(rng.randint(90, 190))
        draw.line([(x, 0), (x + slant, _CANVAS)], fill=(tone, tone, tone), width=1)
    for _ in range(2):
        shaky = [(x + rng.normal(0, 1.5), y + rng.normal(0, 1.5)) for x, y in points]
        for start, end in zip(shaky, [*shaky[1:], shaky[0]], strict=True):
            if rng.uniform() < 0.8:
                draw.line([start, end], fill=(pencil, pencil, pencil), width=2)
    return image


_STYLES: dict[str, Callable[[np.random.RandomState, _Points, _Colour], Image.Image]] = {
    "photo": _photo,
    "painting": _painting,
    "cartoon": _cartoon,
    "sketch": _sketch,
}
