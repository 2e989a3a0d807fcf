"""Augmentation of all images together, as on GPUs, compared with image by image; on the CPU."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from dg_batchformer.training import gpu_augment
from dg_batchformer.training.augment import normalise_floats
from dg_batchformer.training.batch_augment import JITTERS, augment, draw, flip, grayscale
from dg_batchformer.training.device import allow_tf32

LEVEL = 1 / (0.225 * 255)  # one of the 256 levels of a pixel after normalization, at most


def _images(sizes):
    random = torch.Generator().manual_seed(0)
    coarse = [255 * torch.rand(1, 3, 6, 8, generator=random) for _ in sizes]
    return [F.interpolate(few, size, mode="bilinear")[0].byte() for few, size in zip(coarse, sizes, strict=True)]


def _one_by_one(images, parameters, size):
    batch = []
    for row, image in enumerate(images):
        top, left, height, width = parameters.boxes[row].tolist()
        crop = image[None, :, top : top + height, left : left + width].float()
        x = F.interpolate(crop, (size, size), mode="bilinear", antialias=True)
        if parameters.flips[row]:
            flip(x)
        for kind in parameters.order[row].tolist():
            JITTERS[kind](x, parameters.factors[row, kind].view(1, 1, 1, 1))
        if parameters.grays[row]:
            grayscale(x)
        batch.append(normalise_floats(x))
    return torch.cat(batch)


def _together(images, parameters, size, compiles=False):
    sizes = torch.tensor([image.shape[1:] for image in images])
    pixels = torch.cat([image.permute(1, 2, 0).flatten() for image in images])
    extents = 3 * sizes.prod(dim=1)
    planned = gpu_augment.plan(parameters, extents.cumsum(0) - extents, sizes[:, 1])
    return gpu_augment.augment(pixels, planned, planned.arrays, size, compiles=compiles)


@pytest.mark.parametrize("size", [16, 48])
def test_augmenting_images_together_equals_augmenting_them_one_by_one(size):
    sizes = [(90, 70), (40, 64), (33, 200), (120, 31), (50, 50), (1, 3)] * 8
    images = _images(sizes)
    parameters = draw(range(len(images)), torch.tensor(sizes))
    assert parameters.grays.any()
    assert parameters.flips.any()

    together, one_by_one = _together(images, parameters, size), _one_by_one(images, parameters, size)

    assert together.is_contiguous(memory_format=torch.channels_last)
    assert (together - one_by_one).abs().max() < 0.0003 * LEVEL
    assert (together - augment(images, parameters, size)).abs().mean() < 0.5 * LEVEL  # which rounds after resizing


def test_a_batch_without_gray_images_or_with_one_image_is_augmented_too():
    images, sizes = _images([(40, 30)]), torch.tensor([(40, 30)])
    parameters = next(drawn for seed in range(9) if not (drawn := draw([seed], sizes)).grays.any())

    together = _together(images, parameters, 16)

    torch.testing.assert_close(together, _one_by_one(images, parameters, 16), rtol=0, atol=0.0003 * LEVEL)


def test_crops_are_resized_in_full_precision_also_in_runs_that_use_tf32():
    matmul = torch.backends.cuda.matmul
    allow_tf32(True)
    try:
        with gpu_augment.full_precision():
            inside = matmul.allow_tf32
        after = matmul.allow_tf32
    finally:
        allow_tf32(False)

    assert (inside, after) == (False, True)


def test_compiled_augmentation_is_equal_and_compiles_few_graphs_for_batches_of_all_sizes(monkeypatch, forget_compiled):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend, fullgraph=True))
    for count in (3, 5):
        sizes = [(90, 70 + count), (40, 64), (33, 200), (120, 31)] * count
        images, parameters = _images(sizes), draw(range(len(sizes)), torch.tensor(sizes))
        together = [_together(images, parameters, 16, compiles) for compiles in (False, True)]
        assert (together[0] - together[1]).abs().max() < 1e-5
        assert together[1].is_contiguous(memory_format=torch.channels_last)

    functions = 8  # three that resize, four jitters, and the end
    assert functions <= len(graphs) <= 3 * functions
