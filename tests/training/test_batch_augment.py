"""Augmentation of tensors, compared with torchvision's on Pillow images."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torchvision import transforms
from torchvision.transforms import functional

from dg_batchformer.training import batch_augment
from dg_batchformer.training.augment import normalise, short_side_for
from dg_batchformer.training.batch_augment import augment, crop_and_resize, draw
from dg_batchformer.training.cached import planes_for


def _picture(seed, size=(90, 70)):
    noise = np.random.RandomState(seed).randint(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).filter(ImageFilter.SHARPEN)


def _tensor(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


@pytest.mark.parametrize(
    ("operation", "reference", "factors", "bound"),
    [
        (batch_augment.brightness, functional.adjust_brightness, (0.7, 1.0, 1.3), 1.5),
        (batch_augment.contrast, functional.adjust_contrast, (0.7, 1.0, 1.3), 1.5),
        (batch_augment.saturation, functional.adjust_saturation, (0.7, 1.0, 1.3), 1.5),
        (batch_augment.hue, functional.adjust_hue, (-0.3, -0.1, 0.0, 0.1, 0.3), 3.0),
    ],
)
def test_every_jitter_equals_pillows_up_to_rounding(operation, reference, factors, bound):
    pictures = [_picture(seed) for seed in range(len(factors))]
    x = torch.stack([_tensor(picture) for picture in pictures]).float()

    operation(x, torch.tensor(factors).view(-1, 1, 1, 1))

    expected = torch.stack([_tensor(reference(*one)) for one in zip(pictures, factors, strict=True)])
    assert ((x - expected).abs().mean(dim=(1, 2, 3)) < bound).all()


def test_grey_flip_and_crop_equal_pillows_up_to_rounding():
    picture = _picture(0)
    x = _tensor(picture)[None].float()
    batch_augment.grayscale(x)
    assert (x[0] - _tensor(functional.rgb_to_grayscale(picture, 3))).abs().mean() < 1.5

    x = _tensor(picture)[None].float()
    batch_augment.flip(x)
    assert torch.equal(x[0], _tensor(functional.hflip(picture)).float())

    for size in (32, 64, 100):
        resized = crop_and_resize(_tensor(picture), (5, 10, 50, 60), size)
        assert (resized - _tensor(functional.resized_crop(picture, 5, 10, 50, 60, [size, size]))).abs().mean() < 1.5


def test_parameters_are_distributed_like_torchvisions():
    count, size = 4000, (60, 100)
    parameters = draw(range(count), torch.tensor([size] * count))
    torch.manual_seed(0)
    blank = Image.new("RGB", size[::-1])
    crop = transforms.RandomResizedCrop(10, scale=(0.7, 1.0))
    boxes = torch.tensor([crop.get_params(blank, crop.scale, crop.ratio) for _ in range(count)])

    for column in range(4):
        ours, theirs = (part[:, column].double().sort().values for part in (parameters.boxes, boxes))
        assert (ours - theirs).abs().mean() < 0.02 * max(size)  # the distance between the distributions
    assert parameters.flips.double().mean() == pytest.approx(0.5, abs=0.03)
    assert parameters.grays.double().mean() == pytest.approx(0.1, abs=0.02)
    low, high = parameters.factors.min(dim=0).values, parameters.factors.max(dim=0).values
    assert low.tolist() == pytest.approx([0.7, 0.7, 0.7, -0.3], abs=0.01)
    assert high.tolist() == pytest.approx([1.3, 1.3, 1.3, 0.3], abs=0.01)
    orders, counts = parameters.order.unique(dim=0, return_counts=True)
    assert len(orders) == 24
    assert counts.min() > 0.6 * count / 24


@pytest.mark.parametrize("size", [(20, 100), (100, 20), (1, 1), (3, 3)])
def test_crops_stay_inside_images_of_any_shape(size):
    boxes = draw(range(500), torch.tensor([size] * 500)).boxes
    top, left, height, width = boxes.T

    assert (height >= 1).all()
    assert (width >= 1).all()
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= size[0]).all()
    assert (left + width <= size[1]).all()


def test_the_augmentation_of_a_sample_depends_only_on_its_seed():
    images = [_tensor(_picture(seed, (40 + seed, 50))) for seed in range(6)]
    sizes = torch.tensor([image.shape[1:] for image in images])
    together = augment(images, draw(range(6), sizes), 32)

    alone = torch.cat([augment([images[i]], draw([i], sizes[i : i + 1]), 32) for i in range(6)])

    assert torch.equal(together, alone)
    assert not torch.equal(together, augment(images, draw(range(1, 7), sizes), 32))


def test_the_parameters_of_a_seed_stay_those_of_earlier_versions():
    images = [_tensor(_picture(seed, (40 + seed, 50))) for seed in range(2)]
    parameters = draw([7, 2**40], torch.tensor([image.shape[1:] for image in images]))
    uniforms = torch.stack([torch.rand(50, generator=torch.Generator().manual_seed(seed)) for seed in (7, 2**40)])

    assert torch.equal(parameters.flips, uniforms[:, 40] < 0.5)
    assert torch.equal(parameters.factors[:, 0], 0.7 + (torch.tensor(1.3) - 0.7) * uniforms[:, 42])
    assert torch.equal(parameters.order, uniforms[:, 46:].argsort(dim=1))


def test_the_whole_pipeline_equals_torchvisions_with_the_same_parameters():
    pictures = [_picture(seed) for seed in range(20)]
    images = [_tensor(picture) for picture in pictures]
    parameters = draw(range(20), torch.tensor([image.shape[1:] for image in images]))
    adjust = (
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
        functional.adjust_hue,
    )
    expected = []
    for row, picture in enumerate(pictures):
        one = functional.resized_crop(picture, *parameters.boxes[row].tolist(), [48, 48])
        one = functional.hflip(one) if parameters.flips[row] else one
        for kind in parameters.order[row].tolist():
            one = adjust[kind](one, parameters.factors[row, kind].item())
        expected.append(_tensor(functional.rgb_to_grayscale(one, 3) if parameters.grays[row] else one))

    difference = (augment(images, parameters, 48) - normalise(torch.stack(expected))).abs()

    assert difference.mean() * 255 * 0.225 < 3


@pytest.mark.parametrize(("size", "side"), [(32, 320), (224, 320), (225, 320), (288, 416), (384, 544)])
def test_no_crop_is_enlarged_because_the_cache_shrank_the_image(size, side):
    assert short_side_for(size) == side
    _, whole = planes_for(size)
    for native in ((2000, 2000), (1500, 2000), (2000, 1500), (900, 3600), (3600, 900), (side + 1, side + 1)):
        boxes = draw(range(400), torch.tensor([whole.size(native)] * 400)).boxes

        assert boxes[:, 2:].min() >= size


@pytest.mark.parametrize("native", [(227, 227), (320, 500), (100, 900)])
def test_images_that_need_no_shrinking_are_cropped_from_their_own_pixels(native):
    _, whole = planes_for(224)
    image = _picture(0, native[::-1])

    assert whole.size(native) == native
    assert whole.pixels(image, native) == image.tobytes()


def _detail(x):
    """Return the mean absolute Laplacian of an image, (3, H, W)."""
    grey = x.float().mean(dim=0)
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return (around - 4 * grey[1:-1, 1:-1]).abs().mean()


def test_crops_of_a_cached_large_image_keep_its_fine_detail():
    noise = np.random.RandomState(0).randint(0, 256, (427, 640, 3), dtype=np.uint8)
    image = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(0.8))
    (height, width), (_, whole) = (427, 640), planes_for(224)
    kept = whole.size((height, width))
    small = torch.frombuffer(bytearray(whole.pixels(image, kept)), dtype=torch.uint8).view(*kept, 3).permute(2, 0, 1)
    down, across = height / kept[0], width / kept[1]

    for box in draw(range(5), torch.tensor([kept] * 5)).boxes.tolist():
        top, left, h, w = box
        place = (left * across, top * down, (left + w) * across, (top + h) * down)
        exact = _tensor(image.resize((224, 224), Image.Resampling.BILINEAR, box=place))
        cached = crop_and_resize(small, box, 224)

        assert 0.97 < _detail(cached) / _detail(exact) < 1.03
        assert (cached - exact).abs().mean() < 1.5
