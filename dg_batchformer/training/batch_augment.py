"""Augmentation of the cached data path: DomainBed's transforms on tensors, with separate parameters per sample.

Applies the operations of ``augment.Transform`` to uint8 tensors: crop and resize, flip, color jitter in random order,
grayscale. Values are floats in [0, 255], which Pillow would round after every operation. ``augment`` is for CPUs; GPUs
use ``gpu_augment``, with the same parameters and operations.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from math import log
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from dg_batchformer.training.augment import CROP_AREA, CROP_RATIO, normalise_floats

_ATTEMPTS = 10  # attempts of torchvision's RandomResizedCrop before it falls back to the center
_DRAWS = 4 * _ATTEMPTS + 2 + 8
_GRAYSCALE = 0.1
_LUMA = (0.299, 0.587, 0.114)


class Draw(NamedTuple):
    """Augmentation parameters of N samples, on the CPU.

    Attributes:
        boxes: (N, 4) int, top, left, height and width of the crop.
        flips, grays: (N,) bool.
        factors: (N, 4), brightness, contrast and saturation in [0.7, 1.3], hue in [-0.3, 0.3] turns.
        order: (N, 4) int, the order in which these four are applied.

    """

    boxes: Tensor
    flips: Tensor
    grays: Tensor
    factors: Tensor
    order: Tensor


def draw(seeds: Sequence[int], sizes: Tensor) -> Draw:
    """Draw parameters with the distributions of torchvision's transforms; those of a sample depend only on its seed.

    Args:
        seeds: one per sample.
        sizes: (N, 2), height and width of the images.

    """
    uniforms, generator = torch.empty(len(seeds), _DRAWS), torch.Generator()
    # Seeding all samples at once, in NumPy, gives the same numbers but takes 1.6 instead of 0.25 ms for 96.
    for row, seed in zip(uniforms.unbind(), seeds, strict=True):
        torch.rand(_DRAWS, generator=generator.manual_seed(seed), out=row)
    crops, flip, gray, jitter = uniforms.split([4 * _ATTEMPTS, 1, 1, 8], dim=1)
    low, high = torch.tensor([0.7, 0.7, 0.7, -0.3]), torch.tensor([1.3, 1.3, 1.3, 0.3])
    return Draw(
        boxes=_boxes(crops.unflatten(1, (4, _ATTEMPTS)), sizes),
        flips=flip[:, 0] < 0.5,
        grays=gray[:, 0] < _GRAYSCALE,
        factors=low + (high - low) * jitter[:, :4],
        order=jitter[:, 4:].argsort(dim=1),
    )


def _boxes(uniforms: Tensor, sizes: Tensor) -> Tensor:
    """Draw crops, the first attempt that fits or else the center: (N, 4, attempts), (N, 2) -> (N, 4)."""
    height, width = sizes[:, :1], sizes[:, 1:]
    area = (height * width) * (CROP_AREA[0] + (CROP_AREA[1] - CROP_AREA[0]) * uniforms[:, 0])
    ratio = torch.exp(log(CROP_RATIO[0]) + (log(CROP_RATIO[1]) - log(CROP_RATIO[0])) * uniforms[:, 1])
    w, h = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    top, left = ((uniforms[:, 2] * (height - h + 1)).long(), (uniforms[:, 3] * (width - w + 1)).long())
    first = fits.int().argmax(dim=1, keepdim=True)
    boxes = torch.stack([part.gather(1, first)[:, 0] for part in (top, left, h, w)], dim=1)
    return torch.where(fits.any(dim=1, keepdim=True), boxes, _centres(sizes))


def _centres(sizes: Tensor) -> Tensor:
    height, width = sizes.unbind(dim=1)
    narrow, wide = width < CROP_RATIO[0] * height, width > CROP_RATIO[1] * height
    h = torch.where(narrow, (width / CROP_RATIO[0]).round().long(), height)
    w = torch.where(wide, (height * CROP_RATIO[1]).round().long(), width)
    return torch.stack([(height - h) // 2, (width - w) // 2, h, w], dim=1)


def augment(images: Sequence[Tensor], parameters: Draw, size: int) -> Tensor:
    """Augment and normalize images on the CPU: returns (N, 3, size, size) in channels-last memory format.

    Images are processed one by one to stay in the processor's cache, in as many threads as torch uses.

    Args:
        images: uint8 (3, H, W) each, of any size.
        parameters: of the same samples.
        size: output height and width.

    """
    batch = torch.empty(len(images), 3, size, size, memory_format=torch.channels_last)
    boxes, orders = parameters.boxes.tolist(), parameters.order.tolist()

    def fill(row: int) -> None:
        x = crop_and_resize(images[row], boxes[row], size)[None]
        if parameters.flips[row]:
            flip(x)
        for kind in orders[row]:
            JITTERS[kind](x, parameters.factors[row, kind].view(1, 1, 1, 1))
        if parameters.grays[row]:
            grayscale(x)
        batch[row] = normalise_floats(x)[0]

    list(_threads(torch.get_num_threads()).map(fill, range(len(images))))
    return batch


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    # Operations on one image are too small for intra-op parallelism.
    return ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))


def crop_and_resize(image: Tensor, box: Sequence[int], size: int) -> Tensor:
    """Crop a box (top, left, height, width) and resize with antialiasing: uint8 (3, H, W) -> float (3, size, size)."""
    top, left, height, width = box
    cut = image[None, :, top : top + height, left : left + width]
    return F.interpolate(cut, (size, size), mode="bilinear", antialias=True)[0].float()


def flip(x: Tensor) -> None:
    """Flip horizontally in place; x (N, 3, H, W)."""
    x.copy_(x.flip(3))


def grayscale(x: Tensor) -> None:
    """Replace all channels by the luma in place; x (N, 3, H, W)."""
    x.copy_(luma(x))


def brightness(x: Tensor, factor: Tensor) -> None:
    """Blend with black in place; x (N, 3, H, W), factor (N, 1, 1, 1)."""
    x.mul_(factor).clamp_(0, 255)


def contrast(x: Tensor, factor: Tensor) -> None:
    """Blend with the mean luma of the image in place; x (N, 3, H, W), factor (N, 1, 1, 1)."""
    mean = (luma(x).mean(dim=(1, 2, 3), keepdim=True) + 0.5).floor_()
    x.mul_(factor).add_(mean * (1 - factor)).clamp_(0, 255)


def saturation(x: Tensor, factor: Tensor) -> None:
    """Blend with the luma in place; x (N, 3, H, W), factor (N, 1, 1, 1)."""
    grey = luma(x).mul_(1 - factor)
    x.mul_(factor).add_(grey).clamp_(0, 255)


def hue(x: Tensor, turns: Tensor) -> None:
    """Rotate the hue of HSV in place; x (N, 3, H, W), turns (N, 1, 1, 1) in [-0.5, 0.5]."""
    red, green, blue = x.unbind(dim=1)
    high, low = x.amax(dim=1), x.amin(dim=1)
    chroma = high - low
    unit = chroma.clamp_min(1e-6).reciprocal_()
    sixth = torch.where(
        high == red,
        (green - blue).mul_(unit),
        torch.where(high == green, (blue - red).mul_(unit).add_(2), (red - green).mul_(unit).add_(4)),
    )
    sixth.add_(6 * turns[:, 0])
    sixth.sub_((sixth * (1 / 6)).floor_().mul_(6))  # into [0, 6)
    # Each channel decreases with the distance from its peak: red from 0 or 6, green from 2, blue from 4.
    for channel, centre, sign, offset in ((red, 3, 1, -1), (green, 2, -1, 2), (blue, 4, -1, 2)):
        share = (sixth - centre).abs_().mul_(sign).add_(offset).clamp_(0, 1)
        channel.copy_(low).addcmul_(share, chroma)


JITTERS = (brightness, contrast, saturation, hue)  # in the order of ``Draw.factors``


def luma(x: Tensor) -> Tensor:
    """Compute the luma: (N, 3, H, W) -> (N, 1, H, W)."""
    red, green, blue = x.split(1, dim=1)
    return (red * _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])
