#!/usr/bin/env python3
"""How far are cached pixels from the exact ones? tools/compare_pixels.py FOLDER [--short_side N ...] [--images N]

Cuts equal random crops out of the images below a folder, by Pillow as they are and from what the pixel cache keeps of
them, and prints, as Markdown, by how much the 224 x 224 pixels differ on average, in 255ths. The cache shrinks images
whose short side is above 256 pixels to it; --short_side looks how images of other sizes would fare: they are resized
first, and left out where they are smaller. Evaluated images are equal either way.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torchvision.transforms import functional as F

from dg_batchformer.datasets.folders import UNDECODABLE, decode_whole
from dg_batchformer.datasets.pixels import SHORT_SIDE, shrunk
from dg_batchformer.training.batch_augment import crop_and_resize, draw

SIZE = 224


def main() -> None:
    """Compare, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="such as DATA/PACS")
    parser.add_argument("--short_side", type=int, nargs="+", default=[], metavar="N", help="pixels")
    parser.add_argument("--images", type=int, default=500, metavar="N", help="evenly spaced (default: 500)")
    options = parser.parse_args()
    files = sorted(file for file in options.folder.rglob("*") if file.suffix.lower() in Image.registered_extensions())
    if not files:
        parser.error(f"{options.folder} holds no images")
    files = files[:: -(-len(files) // options.images)]
    print("| short side | images | shrunk | difference | of the worst tenth |\n|---|---|---|---|---|")
    for side in (None, *options.short_side):
        print(row(files, side), flush=True)


def row(files: Sequence[Path], side: int | None) -> str:
    """Return the line of all images that have, or can be given, a short side."""
    found: list[float] = []
    shrinks = 0
    for seed, file in enumerate(files):
        try:
            image = decode_whole(file)
        except UNDECODABLE as error:
            sys.exit(f"{file} cannot be decoded ({error})")
        if side is not None:
            if min(image.size) < side:
                continue
            image = F.resize(image, [side])
        shrinks += min(image.size) > SHORT_SIDE
        found.append(difference(image, seed))
    if not found:
        return f"| {side} | none is that large | | | |"
    tenth = statistics.quantiles(found, n=10)[-1] if len(found) > 1 else found[0]
    cells = [
        side or "as they are",
        len(found),
        f"{shrinks / len(found):.0%}",
        f"{statistics.mean(found):.2f}",
        f"{tenth:.2f}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def difference(image: Image.Image, seed: int) -> float:
    """Return by how much a crop of an image differs, 255ths on average."""
    size = image.height, image.width
    [box] = draw([seed], torch.tensor([size])).boxes.tolist()
    exact = F.pil_to_tensor(F.resized_crop(image, *box, [SIZE, SIZE]))
    kept = shrunk(size)
    small = image if kept == size else image.resize(kept[::-1], Image.Resampling.BILINEAR)
    scaled = [round(part * now / before) for part, now, before in zip(box, kept * 2, size * 2, strict=True)]
    return (crop_and_resize(F.pil_to_tensor(small), scaled, SIZE) - exact).abs().mean().item()


if __name__ == "__main__":
    main()
