#!/usr/bin/env python3
"""Measure the processing of datasets against plain Pillow loops on the same cores: tools/bench_data.py [--parts ...]

  verify  all of data verify, against a loop that opens and loads every image
  cache   both planes of data cache, against a loop that writes the same pixels, image by image, plane by plane
  terra   seconds to place the images of TerraIncognita by 60,000 made-up annotations, and by four times as many

--data_dir DIR uses the images of DIR/PACS; by default, 2,000 JPEGs of 500 x 375 pixels are made. Rounds alternate under
equal conditions; the first, which reads the files into memory, does not count. Results are printed as Markdown, with
the load of the machine: above the number of cores, only the CPU time per image of the fastest round is reliable. It
bounds the ratio: cores times loop by ours.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from dg_batchformer.datasets import get_dataset_class  # noqa: E402
from dg_batchformer.datasets.decoding import decode_whole, open_file  # noqa: E402
from dg_batchformer.datasets.integrity import inspect_files  # noqa: E402
from dg_batchformer.datasets.pixels import prepare_planes  # noqa: E402
from dg_batchformer.datasets.prepare.terra import CLASSES, places_of  # noqa: E402
from dg_batchformer.datasets.tree import read_tree  # noqa: E402
from dg_batchformer.datasets.verify import verify  # noqa: E402
from dg_batchformer.runtime.parallel import usable_cores  # noqa: E402
from dg_batchformer.training.cached import planes_for  # noqa: E402

Work: TypeAlias = Callable[[Path, Sequence[Path]], object]
"""What is timed: given ``data_dir`` and the files of its PACS."""


def main() -> None:
    """Run the requested measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=(*PARTS, "terra"), default=[*PARTS, "terra"])
    parser.add_argument("--data_dir", type=Path, metavar="DIR", help="holds PACS")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="(default: %(default)s)")
    options = parser.parse_args()
    compared = [part for part in options.parts if part in PARTS]
    if compared:
        compare(compared, options)
    if "terra" in options.parts:
        with tempfile.TemporaryDirectory() as path:
            terra(Path(path))


def compare(parts: Sequence[str], options: argparse.Namespace) -> None:
    """Compare some parts with plain loops."""
    with _images(options.data_dir) as data_dir:
        files = [file for _, _, file in read_tree("PACS", data_dir).placed]
        print(f"{len(files):,} images, {usable_cores()} cores, load {os.getloadavg()[0]:.1f}\n")
        print("| part | ours, images/s | Pillow loop | ratio | of fastest rounds | CPU ms/image | Pillow loop |")
        print("|---|---|---|---|---|---|---|")
        for part in parts:
            _compare(part, data_dir, files, options.rounds)


def _compare(part: str, data_dir: Path, files: Sequence[Path], rounds: int) -> None:
    timed: list[list[tuple[float, float]]] = [[], []]
    for turn in range(rounds + 1):
        for work, times in zip(PARTS[part], timed, strict=True):
            begun = time.perf_counter(), _cpu()
            work(data_dir, files)
            if turn:  # the first only warms up
                times.append((time.perf_counter() - begun[0], _cpu() - begun[1]))
    walls = [[seconds for seconds, _ in times] for times in timed]
    medians = [len(files) / statistics.median(seconds) for seconds in walls]
    fastest = [len(files) / min(seconds) for seconds in walls]
    cpu = [1e3 * min(seconds for _, seconds in times) / len(files) for times in timed]
    ratios = f"{medians[0] / medians[1]:.2f} | {fastest[0] / fastest[1]:.2f}"
    print(f"| {part} | {medians[0]:,.0f} | {medians[1]:,.0f} | {ratios} | {cpu[0]:.2f} | {cpu[1]:.2f} |", flush=True)


def terra(path: Path) -> None:
    """Place as many images as CCT20 has, and four times as many, by annotations."""
    print("\n| annotations | images kept | seconds |\n|---|---|---|")
    for count in (60_000, 240_000):
        file = path / f"{count}.json"
        file.write_text(json.dumps(_camera_traps(count)))
        began = time.perf_counter()
        places = places_of([file])
        print(f"| {count:,} | {len(places):,} | {time.perf_counter() - began:.2f} |", flush=True)


def _camera_traps(count: int) -> dict[str, list[dict]]:
    draw = random.Random(0)
    names = [*CLASSES, "car", "fox", "skunk"]
    locations = ["38", "46", "100", "43", *map(str, range(1, 17))]
    return {
        "categories": [{"id": number, "name": name} for number, name in enumerate(names)],
        "images": [
            {"id": f"{n:032x}", "file_name": f"{n:032x}.jpg", "location": draw.choice(locations), "width": 1024}
            for n in range(count)
        ],
        "annotations": [
            {"id": n, "image_id": f"{draw.randrange(count):032x}", "category_id": draw.randrange(len(names))}
            for n in range(count)
        ],
    }


def _cpu() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    return sum(os.times()[:4])


def _verify(data_dir: Path, files: Sequence[Path]) -> None:
    tree = read_tree("PACS", data_dir)
    verify(tree, list(inspect_files([file for _, _, file in tree.placed])))


def _load(data_dir: Path, files: Sequence[Path]) -> None:
    for file in files:
        with open_file(file) as image:
            image.load()


def _cache(data_dir: Path, files: Sequence[Path]) -> None:
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        dataset = get_dataset_class("PACS")(data_dir, [0], {"image_size": 224})
        prepare_planes(dataset, planes_for(224), lambda done, images: None)


def _decode_twice(data_dir: Path, files: Sequence[Path]) -> None:
    for kind in planes_for(224):
        with tempfile.TemporaryFile() as pixels:
            for file in files:
                decoded = decode_whole(file)
                pixels.write(kind.pixels(decoded, kind.size((decoded.height, decoded.width))))


PARTS: dict[str, tuple[Work, Work]] = {"verify": (_verify, _load), "cache": (_cache, _decode_twice)}


@contextmanager
def _images(data_dir: Path | None) -> Iterator[Path]:
    """Yield the folder of PACS: the given one, or a temporary made-up one."""
    if data_dir is not None:
        yield data_dir
        return
    made = Path(tempfile.mkdtemp())
    try:
        rng = np.random.default_rng(0)
        for index in range(2000):
            environment = ("art_painting", "cartoon", "photo", "sketch")[index % 4]
            folder = made / "PACS" / environment / f"class{index // 4 % 7}"
            folder.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(rng.integers(0, 256, (47, 63, 3), dtype=np.uint8))
            coarse.resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"{index}.jpg", quality=90)
        yield made
    finally:
        shutil.rmtree(made)


if __name__ == "__main__":
    main()
