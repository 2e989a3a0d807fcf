#!/usr/bin/env python3
"""How far are cached pixels from the exact ones? tools/compare_pixels.py FOLDER [--short_side N ...] [--images N]

Cuts equal random crops out of the images below a folder, by Pillow as they are and from what the pixel cache keeps of
them, and prints, as Markdown, by how much the 224 x 224 pixels differ on average, in 255ths. The cache shrinks images
whose short side is above 256 pixels to it; --short_side looks how images of other sizes would fare: they are resized
first, and left out where they are smaller. Evaluated images are equal either way.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torchvision.transforms import functional as F

from dg_batchformer.datasets.decoding import decode
from dg_batchformer.datasets.folders import image_files
from dg_batchformer.datasets.pixels import shrunk
from dg_batchformer.training.batch_augment import crop_and_resize, draw

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
    files = image_files(options.folder)
    if not files:
        parser.error(f"{options.folder} holds no images")
    sides = [None, *options.short_side]
    found: dict[int | None, list[Crop]] = {side: [] for side in sides}
    for seed, file in enumerate(files[:: -(-len(files) // options.images)]):
        image, _ = decode(file)
        for side in sides:
            if side is None or min(image.size) >= side:
                found[side].append(compare(image if side is None else F.resize(image, [side]), seed))
    print("| short side | images | shrunk | difference | of the worst tenth |\n|---|---|---|---|---|")
    for side, crops in found.items():
        print(f"| {side or 'as they are'} | {row(crops)} |")


class Crop(NamedTuple):
    """One crop out of one image: whether the cache shrinks that, and by how much they differ, 255ths on average."""

    shrunk: bool
    difference: float


def row(crops: Sequence[Crop]) -> str:
    """Return the cells of all images that have, or can be given, a short side."""
    if len(crops) < 2:
        return f"{len(crops)}, too few to tell | | | "
    differences = [crop.difference for crop in crops]
    share, tenth = statistics.mean(crop.shrunk for crop in crops), statistics.quantiles(differences, n=10)[-1]
    return f"{len(crops)} | {share:.0%} | {statistics.mean(differences):.2f} | {tenth:.2f}"


def compare(image: Image.Image, seed: int) -> Crop:
    """Cut one random crop out of an image and out of what the cache keeps of it."""
    size = image.height, image.width
    [box] = draw([seed], torch.tensor([size])).boxes.tolist()
    exact = F.pil_to_tensor(F.resized_crop(image, *box, [SIZE, SIZE]))
    kept = shrunk(size)
    small = image if kept == size else image.resize(kept[::-1], Image.Resampling.BILINEAR)
    scaled = [round(part * now / before) for part, now, before in zip(box, kept * 2, size * 2, strict=True)]
    cached = crop_and_resize(F.pil_to_tensor(small), scaled, SIZE)
    return Crop(kept != size, (cached - exact).abs().mean().item())


if __name__ == "__main__":
    main()
