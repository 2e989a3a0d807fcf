"""Augmentation of the cached data path on GPUs: all images of a step together, in few kernel launches.

The operations are those of ``batch_augment``, except that values are not rounded to bytes after resizing. Crops are
gathered into one padded tensor and resized by two matrix products. For each of the four color jitters in random order,
samples are sorted by operation, so that an operation changes consecutive samples in place. In runs that compile, every
function is a few kernels.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from dg_batchformer.networks.compilation import Given, Made, compiled
from dg_batchformer.training.augment import standardise, statistics
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


def augment(pixels: Tensor, planned: Plan, arrays: Arrays, size: int, *, compiles: bool = False) -> Tensor:
    """Augment and normalize images: returns (N, 3, size, size) in channels-last memory format.

    Does not wait for the device.

    Args:
        pixels: uint8, all images one after the other, (height, width, 3) each.
        planned: of the samples.
        arrays: those of the plan, on the device of the pixels.
        size: output height and width.
        compiles: whether to compile the operations, which fuses them.

    """
    x = _resize(pixels, planned, arrays, size, compiles)
    for arrangement, factors, counts in zip(arrays.arrangements[:-1], arrays.factors, planned.samples, strict=True):
        x = x.index_select(0, arrangement)
        for change, some, factor in zip(JITTERS, x.split(counts), factors.split(counts), strict=True):
            if len(some):
                fused(change, compiles)(some, factor[:, None, None, None])
    return fused(_finish, compiles)(x, arrays.arrangements[-1], arrays.grays, *statistics(x.device))


@cache
def fused(function: Callable[Given, Made], compiles: bool) -> Callable[Given, Made]:
    """Return a function, compiled for all sizes if asked for."""
    return compiled(function, dynamic=True) if compiles else function


def _finish(x: Tensor, order: Tensor, grays: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Restore the order of samples, make some gray, and normalize."""
    x = x.index_select(0, order)
    x.index_copy_(0, grays, luma(x.index_select(0, grays)).expand(-1, 3, -1, -1))
    return standardise(x, mean, std).contiguous(memory_format=torch.channels_last)


def _crops(pixels: Tensor, height: int, width: int, arrays: Arrays) -> Tensor:
    """Gather crops, padded by repeating their last row and column: float (N, height, width, 3)."""
    y, x = (torch.arange(extent, device=pixels.device) for extent in (height, width))
    rows = torch.minimum(y, arrays.heights[:, None] - 1) * arrays.strides[:, None] + arrays.begins[:, None]
    columns = torch.minimum(x, arrays.widths[:, None] - 1) * 3
    return pixels.unfold(0, 3, 1)[rows[:, :, None] + columns[:, None]].float()


def _resize(pixels: Tensor, planned: Plan, arrays: Arrays, size: int, compiles: bool) -> Tensor:
    """Crop, resize and flip: float (N, 3, size, size)."""
    crops = fused(_crops, compiles)(pixels, planned.height, planned.width, arrays)
    down = fused(_weights, compiles)(arrays.heights, size, planned.height)
    across = fused(_flipped_weights, compiles)(arrays.widths, size, planned.width, arrays.flips)
    with full_precision():
        rows = down @ crops.flatten(2)  # (N, size, width * 3)
        rows = rows.unflatten(2, (planned.width, 3)).transpose(2, 3).flatten(1, 2)  # (N, size * 3, width)
        return (rows @ across.mT).unflatten(1, (size, 3)).transpose(1, 2)


def _flipped_weights(lengths: Tensor, size: int, span: int, flips: Tensor) -> Tensor:
    """Compute ``_weights``, in reverse order for the samples that are flipped."""
    weights = _weights(lengths, size, span)
    return torch.where(flips[:, None, None], weights.flip(1), weights)


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
