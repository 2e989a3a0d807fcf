"""Transforms of the exact data path: torchvision's, as DomainBed composes them, with a seed per sample."""

from math import ceil

import torch
from PIL.Image import Image
from torch import Tensor
from torchvision import transforms

CROP_AREA = (0.7, 1.0)  # of a random crop, as a share of the image
CROP_RATIO = (3 / 4, 4 / 3)  # of its width to its height
_SHARED_SHORT_SIDE = 320  # enough for 224 pixels; one cache serves all smaller sizes
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class Transform:
    """Pillow images to uint8 tensors, (3, size, size); plain, or augmented where a seed is given."""

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
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
            torch.default_generator.manual_seed(seed)
            return self.augmented(image)


def short_side_for(size: int) -> int:
    """Return to which short side images may be shrunk before random crops, so that none has to be enlarged to ``size``.

    The smallest crop has the least area and ratio, and is cut out of a square image.
    """
    least = size / (CROP_AREA[0] * CROP_RATIO[0]) ** 0.5
    return max(_SHARED_SHORT_SIDE, 32 * ceil(least / 32))


def normalise(images: Tensor) -> Tensor:
    """Turn uint8 images into what networks see, (N, C, H, W); colour images by ImageNet's mean and deviation.

    Bit-equal to torchvision's ToTensor and Normalize. Other inputs are left as they are.
    """
    return normalise_floats(images.float()) if images.dtype == torch.uint8 else images


def normalise_floats(images: Tensor) -> Tensor:
    """As ``normalise``, for floats between 0 and 255, in place."""
    images.div_(255)
    if images.shape[1] == 3:
        mean, std = (torch.tensor(value, device=images.device).view(3, 1, 1) for value in (_MEAN, _STD))
        images.sub_(mean).div_(std)
    return images
