"""Contact sheets: sample images by environment (rows) and class (columns), which show the domain shift."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from dg_batchformer.datasets.base import Dataset, Environment
from dg_batchformer.errors import InputError
from dg_batchformer.seeds import seed_hash

CELL = 120  # side of a cell, in pixels
_GAP, _MARGIN = 6, 24
_COLUMNS = 12  # classes per band; further classes start a new band
_BANDS = 6  # classes beyond that are subsampled evenly
_INK, _PALE, _PAPER, _HOLE, _FRAME = "#1a1a1a", "#767676", "#ffffff", "#f0f0f0", "#dddddd"


@dataclass(frozen=True)
class Layout:
    """Geometry of a sheet.

    Args:
        bands: class indices, one sequence per band of columns.
        num_environments: rows per band.
        labels: width of the environment names, in pixels.
        per_side: samples per side of a cell.

    """

    bands: Sequence[Sequence[int]]
    num_environments: int
    labels: int
    per_side: int

    header = 64  # title and subtitle
    names = 22  # class names, above every band

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the sheet, in pixels."""
        across = max(len(band) for band in self.bands)
        width = self.labels + across * (CELL + _GAP) - _GAP
        return 2 * _MARGIN + width, 2 * _MARGIN + self.header + len(self.bands) * self.band_height - _MARGIN

    @property
    def band_height(self) -> int:
        """Vertical distance between bands, in pixels."""
        return self.names + self.num_environments * (CELL + _GAP) + _MARGIN

    def corner(self, band: int, env: int, column: int) -> tuple[int, int]:
        """Return (left, top) of a cell, in pixels."""
        top = _MARGIN + self.header + band * self.band_height + self.names + env * (CELL + _GAP)
        return _MARGIN + self.labels + column * (CELL + _GAP), top


def draw_contact_sheet(dataset: Dataset) -> Image.Image:
    """Draw a contact sheet of a dataset of images; the random samples are the same in every call.

    Raises InputError if the dataset does not contain images, or one cannot be decoded.
    """
    if len(dataset.input_shape) != 3:
        raise InputError(f"{dataset.facts.name} holds vectors, not images: there is nothing to draw")
    layout = plan_layout(dataset)
    sheet = Image.new("RGB", layout.size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    _draw_header(draw, dataset, layout)
    for band, classes in enumerate(layout.bands):
        for column, label in enumerate(classes):
            left, top = layout.corner(band, 0, column)
            _text(draw, (left + CELL / 2, top - 8), dataset.classes[label], 14, anchor="ms", width=CELL)
        for env, environment in enumerate(dataset.environments):
            _draw_label(draw, environment, layout.corner(band, env, 0)[1], layout.labels)
            for column, label in enumerate(classes):
                left, top = layout.corner(band, env, column)
                sheet.paste(_cell(environment, label, layout.per_side), (left, top))
                draw.rectangle((left - 1, top - 1, left + CELL, top + CELL), outline=_FRAME)  # sketches are white
    return sheet


def plan_layout(dataset: Dataset) -> Layout:
    """Return the bands, columns and classes of the sheet of a dataset."""
    classes: Sequence[int] = range(dataset.num_classes)
    most = _COLUMNS * _BANDS
    if len(classes) > most:
        classes = [round(place) for place in np.linspace(0, len(classes) - 1, most)]
    bands = -(-len(classes) // _COLUMNS)
    across = -(-len(classes) // bands)  # bands of equal length
    widest = max(_font(15).getlength(environment.name) for environment in dataset.environments)
    return Layout(
        [classes[start : start + across] for start in range(0, len(classes), across)],
        len(dataset),
        labels=int(max(widest, _font(12).getlength("999,999 images"))) + 18,
        per_side=2 if len(classes) <= _COLUMNS else 1,
    )


def _draw_header(draw: ImageDraw.ImageDraw, dataset: Dataset, layout: Layout) -> None:
    images = sum(map(len, dataset.environments))
    shown = sum(map(len, layout.bands))
    samples = "one random image" if layout.per_side == 1 else "four random images"
    about = f"{samples} of every environment (rows) and class (columns)"
    if shown < dataset.num_classes:
        about += f"; {shown} of {dataset.num_classes} classes, evenly spaced in alphabetical order"
    _text(draw, (_MARGIN, _MARGIN + 20), dataset.facts.name, 24)
    title = _font(24).getlength(dataset.facts.name)
    _text(draw, (_MARGIN + title + 14, _MARGIN + 20), f"{images:,} images, {dataset.num_classes} classes", 14, _PALE)
    _text(draw, (_MARGIN, _MARGIN + 44), about, 13, _PALE, width=layout.size[0] - 2 * _MARGIN)


def _draw_label(draw: ImageDraw.ImageDraw, environment: Environment, top: int, width: int) -> None:
    middle = top + CELL / 2
    _text(draw, (_MARGIN, middle), environment.name, 15, width=width - 6)
    _text(draw, (_MARGIN, middle + 18), f"{len(environment):,} images", 12, _PALE)


def _cell(environment: Environment, label: int, per_side: int) -> Image.Image:
    """Draw the samples of an environment and class; missing samples stay grey."""
    cell = Image.new("RGB", (CELL, CELL), _HOLE)
    there = np.flatnonzero(np.asarray(environment.labels) == label)
    if not len(there):
        _text(ImageDraw.Draw(cell), (CELL / 2, CELL / 2), "no image", 12, _PALE, anchor="mm")
        return cell
    rng = np.random.RandomState(seed_hash("contact sheet", environment.name, label))
    chosen = sorted(rng.permutation(there)[: per_side**2].tolist())
    side = (CELL - (per_side - 1) * 2) // per_side
    for place, image in enumerate(environment.load(chosen).images):
        picture = image if isinstance(image, Image.Image) else _as_picture(image)
        row, column = divmod(place, per_side)
        cell.paste(ImageOps.fit(picture, (side, side)), (column * (side + 2), row * (side + 2)))
    return cell


def _as_picture(x: Tensor) -> Image.Image:
    """Convert a tensor (channels, height, width), uint8 or float in [0, 1], to an image; missing channels are black."""
    values = x.numpy() if x.dtype.itemsize == 1 else (x.clamp(0, 1) * 255).byte().numpy()
    channels = [*values, *[np.zeros_like(values[0])] * (3 - len(values))] if len(values) > 1 else [values[0]] * 3
    return Image.fromarray(np.stack(channels, axis=-1))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _text(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    size: int,
    ink: str = _INK,
    *,
    anchor: str = "ls",
    width: float | None = None,
) -> None:
    """Write a line of text, truncated with an ellipsis to ``width`` pixels."""
    font = _font(size)
    if width is not None and font.getlength(text) > width:
        while text and font.getlength(f"{text}…") > width:
            text = text[:-1]
        text += "…"
    draw.text(place, text, fill=ink, font=font, anchor=anchor)
