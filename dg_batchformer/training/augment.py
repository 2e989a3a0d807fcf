"""Transforms of the exact data path: torchvision's, composed as in DomainBed, with one seed per sample."""

from functools import cache
from math import ceil

import torch
from PIL.Image import Image
from torch import Tensor
from torchvision import transforms

CROP_AREA = (0.7, 1.0)  # area of a random crop, relative to the image
CROP_RATIO = (3 / 4, 4 / 3)  # its width over its height
_SHARED_SHORT_SIDE = 320  # enough for crops of 224 pixels; smaller image sizes share the cache
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class Transform:
    """Convert Pillow images to uint8 tensors (3, size, size); augment them if a seed is given."""

    def __init__(self, size: int) -> None:
        self.plain = transforms.Compose([transforms.Resize((size, size)), transforms.PILToTensor()])
        self.augmented = transforms.Compose(
            [
                transforms.RandomResizedCrop(size, CROP_AREA, CROP_RATIO),
                transforms.RandomHorizontalFlip(),
                transforms.ColorJitter(0.3, 0.3, 0.3, 0.3),
                transforms.RandomGrayscale(),
                transforms.PILToTensor(),
            ]
        )

    def __call__(self, image: Image, seed: int | None) -> Tensor:
        if seed is None:
            return self.plain(image)
        with torch.random.fork_rng(devices=[]):  # torchvision uses the global generator
            torch.default_generator.manual_seed(seed)
            return self.augmented(image)


def short_side_for(size: int) -> int:
    """Return the short side to which images may be shrunk before random crops, so that no crop is enlarged to ``size``.

    The smallest crop has minimal area and ratio, and comes from a square image.
    """
    least = size / (CROP_AREA[0] * CROP_RATIO[0]) ** 0.5
    return max(_SHARED_SHORT_SIDE, 32 * ceil(least / 32))


def normalise(images: Tensor) -> Tensor:
    """Normalize uint8 images (N, C, H, W) for networks; color images use ImageNet's mean and standard deviation.

    Bit-equal to torchvision's ToTensor and Normalize. Other dtypes are returned unchanged.
    """
    return normalise_floats(images.float()) if images.dtype == torch.uint8 else images


def normalise_floats(images: Tensor) -> Tensor:
    """Normalize floats in [0, 255] in place, like ``normalise``."""
    return standardise(images, *statistics(images.device)) if images.shape[1] == 3 else images.div_(255)


def standardise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Divide by 255, subtract a mean and divide by a standard deviation, in place."""
    return images.div_(255).sub_(mean).div_(std)


@cache
def statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return ImageNet's mean and standard deviation on a device, (3, 1, 1) each."""
    mean, std = (torch.tensor(value, device=device).view(3, 1, 1) for value in (_MEAN, _STD))
    return mean, std
