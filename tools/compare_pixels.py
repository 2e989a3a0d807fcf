#!/usr/bin/env python3
"""Compare crops of cached and original images: tools/compare_pixels.py FOLDER [--short_side N ...] [--images N]

Cuts random crops out of the images of the pixel cache, and the same parts out of the images in a folder with Pillow.
Prints, as Markdown, for 224 x 224 pixels: the share of images that the cache shrinks, the fine detail that their crops
keep (ratio of mean absolute Laplacians, cached to exact), and the mean difference of pixels in 255ths; of all images if
none is shrunk. --short_side simulates other sizes: images are resized first, and left out if they are smaller.
Evaluated images are equal in both cases.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as F

from dg_batchformer.catalog.class_folders import images_below
from dg_batchformer.datasets.decoding import decode
from dg_batchformer.training.batch_augment import crop_and_resize, draw
from dg_batchformer.training.cached import planes_for

SIZE = 224


def main() -> None:
    """Compare, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="such as DATA/PACS")
    parser.add_argument("--short_side", type=int, nargs="+", default=[], metavar="N", help="pixels")
    parser.add_argument("--images", type=int, default=500, metavar="N", help="evenly spaced (default: 500)")
    options = parser.parse_args()
    if min([options.images, *options.short_side]) < 1:
        parser.error("--images and --short_side take numbers from 1 on")
    files, _ = images_below(options.folder)
    if not files:
        parser.error(f"{options.folder} holds no images")
    sides = [None, *options.short_side]
    found: dict[int | None, list[Crop]] = {side: [] for side in sides}
    for seed, file in enumerate(files[:: -(-len(files) // options.images)]):
        image, _ = decode(file)
        for side in sides:
            if side is None or min(image.size) >= side:
                found[side].append(compare(image if side is None else F.resize(image, [side]), seed))
    print("| short side | images | shrunk | detail kept | difference | of the worst tenth |\n|---|---|---|---|---|---|")
    for side, crops in found.items():
        print(f"| {side or 'as they are'} | {row(crops)} |")


class Crop(NamedTuple):
    """A crop of an image: whether the cache shrinks the image, and how the crop compares with the exact one."""

    shrunk: bool
    detail: float
    difference: float


def row(crops: Sequence[Crop]) -> str:
    """Return the cells of all images that have, or can be resized to, a short side."""
    if len(crops) < 2:
        return f"{len(crops)}, too few to tell | | | |"
    shrunk = [crop for crop in crops if crop.shrunk]
    shown = shrunk if len(shrunk) > 1 else crops
    kept = statistics.mean(crop.detail for crop in shown)
    differences = [crop.difference for crop in shown]
    mean, tenth = statistics.mean(differences), statistics.quantiles(differences, n=10)[-1]
    return f"{len(crops)} | {len(shrunk) / len(crops):.0%} | {kept:.2f} | {mean:.2f} | {tenth:.2f}"


def compare(image: Image.Image, seed: int) -> Crop:
    """Cut a random crop out of the cached image, and the same part out of the original."""
    native, (_, plane) = (image.height, image.width), planes_for(SIZE)
    kept = plane.size(native)
    pixels = torch.frombuffer(bytearray(plane.pixels(image, kept)), dtype=torch.uint8)
    [box] = draw([seed], torch.tensor([kept])).boxes.tolist()
    cached = crop_and_resize(pixels.view(*kept, 3).permute(2, 0, 1), box, SIZE)
    (top, left, height, width), down, across = box, native[0] / kept[0], native[1] / kept[1]
    place = (left * across, top * down, (left + width) * across, (top + height) * down)
    exact = F.pil_to_tensor(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=place)).float()
    ratio = (detail(cached) / detail(exact).clamp_min(1e-6)).item()
    return Crop(kept != native, ratio, (cached - exact).abs().mean().item())


def detail(x: Tensor) -> Tensor:
    """Return the mean absolute Laplacian of the grey values of an image, (3, H, W)."""
    grey = x.mean(dim=0)
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return (around - 4 * grey[1:-1, 1:-1]).abs().mean()


if __name__ == "__main__":
    main()
