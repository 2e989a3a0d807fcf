"""Augmentation of the cached data path on GPUs: all images of a step together, in few kernel launches.

The operations are those of ``batch_augment``, except that values are not rounded to bytes after resizing. Crops are
gathered into one padded tensor and resized by two matrix products. For each of the four color jitters in random order,
samples are sorted by operation, so that an operation changes consecutive samples in place.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from dg_batchformer.training.augment import normalise_floats
from dg_batchformer.training.batch_augment import JITTERS, Draw, luma


class Arrays(NamedTuple):
    """The parameters of N samples, for the device.

    Attributes:
        begins: position of the crop's first byte among all pixels.
        strides: bytes from one image row to the next.
        heights, widths: of the crops.
        flips: bool.
        arrangements: (5, N) indices that sort samples by the operation at the next place; the last restores the order.
        factors: (4, N), of the operations at every place, for sorted samples.
        grays: indices of the gray samples.

    """

    begins: Tensor
    strides: Tensor
    heights: Tensor
    widths: Tensor
    flips: Tensor
    arrangements: Tensor
    factors: Tensor
    grays: Tensor


class Plan(NamedTuple):
    """The augmentation of N samples, as the host prepares it.

    Attributes:
        height, width: of the largest crop.
        samples: number of samples of every operation, at each of the four places in the order of jitters.
        arrays: tensors for the device, (..., N) each.

    """

    height: int
    width: int
    samples: list[list[int]]
    arrays: Arrays


def plan(parameters: Draw, begins: Tensor, widths: Tensor) -> Plan:
    """Prepare the augmentation of samples on the host.

    Args:
        parameters: of the samples.
        begins: (N,) positions of the images' first bytes.
        widths: (N,) widths of the images.

    """
    top, left, height, width = parameters.boxes.unbind(dim=1)
    kinds = parameters.order.T  # (4, N)
    orders = kinds.argsort(dim=1, stable=True)  # sorted position -> sample
    positions = orders.argsort(dim=1)  # sample -> sorted position
    steps = [orders[0], *(positions[place - 1][orders[place]] for place in range(1, 4)), positions[3]]
    arrays = Arrays(
        begins=begins + 3 * (top * widths + left),
        strides=3 * widths,
        heights=height,
        widths=width,
        flips=parameters.flips,
        arrangements=torch.stack(steps),
        factors=parameters.factors[orders, kinds.gather(1, orders)],
        grays=parameters.grays.nonzero()[:, 0],
    )
    samples = [kind.bincount(minlength=len(JITTERS)).tolist() for kind in kinds]
    return Plan(int(height.max()), int(width.max()), samples, arrays)


def augment(pixels: Tensor, planned: Plan, arrays: Arrays, size: int) -> Tensor:
    """Augment and normalize images: returns (N, 3, size, size) in channels-last memory format.

    Does not wait for the device.

    Args:
        pixels: uint8, all images one after the other, (height, width, 3) each.
        planned: of the samples.
        arrays: those of the plan, on the device of the pixels.
        size: output height and width.

    """
    x = _resize(_crops(pixels, planned, arrays), arrays, size)
    for arrangement, factors, counts in zip(arrays.arrangements[:-1], arrays.factors, planned.samples, strict=True):
        x = x.index_select(0, arrangement)
        for change, some, factor in zip(JITTERS, x.split(counts), factors.split(counts), strict=True):
            if len(some):
                change(some, factor[:, None, None, None])
    x = x.index_select(0, arrays.arrangements[-1])
    if len(arrays.grays):
        x.index_copy_(0, arrays.grays, luma(x.index_select(0, arrays.grays)).expand(-1, 3, -1, -1))
    return normalise_floats(x).contiguous(memory_format=torch.channels_last)


def _crops(pixels: Tensor, planned: Plan, arrays: Arrays) -> Tensor:
    """Gather crops, padded by repeating their last row and column: uint8 (N, height, width, 3)."""
    y, x = (torch.arange(extent, device=pixels.device) for extent in (planned.height, planned.width))
    rows = torch.minimum(y, arrays.heights[:, None] - 1) * arrays.strides[:, None] + arrays.begins[:, None]
    columns = torch.minimum(x, arrays.widths[:, None] - 1) * 3
    return pixels.unfold(0, 3, 1)[rows[:, :, None] + columns[:, None]]


def _resize(crops: Tensor, arrays: Arrays, size: int) -> Tensor:
    """Resize padded crops and flip them: uint8 (N, height, width, 3) -> float (N, 3, size, size)."""
    _, height, width, _ = crops.shape
    down, across = _weights(arrays.heights, size, height), _weights(arrays.widths, size, width)
    across = torch.where(arrays.flips[:, None, None], across.flip(1), across)
    with full_precision():
        rows = down @ crops.float().flatten(2)  # (N, size, width * 3)
        rows = rows.unflatten(2, (width, 3)).transpose(2, 3).flatten(1, 2)  # (N, size * 3, width)
        return (rows @ across.mT).unflatten(1, (size, 3)).transpose(1, 2)


def _weights(lengths: Tensor, size: int, span: int) -> Tensor:
    """Compute the weights of bilinear interpolation with antialiasing, as F.interpolate does: (N,) -> (N, size, span).

    Args:
        lengths: pixels of every sample.
        size: pixels after resizing.
        span: pixels including padding, whose weights are 0.

    """
    step = lengths[:, None, None] / size
    reach = step.clamp_min(1)
    pixels = torch.arange(span, device=lengths.device)
    centres = (torch.arange(size, device=lengths.device)[:, None] + 0.5) * step
    weights = (1 - ((pixels + 0.5 - centres) / reach).abs()).clamp_min(0) * (pixels < lengths[:, None, None])
    return weights / weights.sum(dim=2, keepdim=True)


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute matrix products in full precision inside the context, also in runs that use TF32."""
    matmul = torch.backends.cuda.matmul
    allowed, matmul.allow_tf32 = matmul.allow_tf32, False
    try:
        yield
    finally:
        matmul.allow_tf32 = allowed
