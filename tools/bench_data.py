#!/usr/bin/env python3
"""Measure what is done to datasets: tools/bench_data.py [--parts terra]

  terra  seconds to place the images of TerraIncognita by 60,000 generated annotations, and by four times as many
Figures go to standard output, as Markdown.
"""

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

from dg_batchformer.datasets.prepare.terra import CLASSES, places_of

PARTS = ("terra",)


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    for part in options.parts:
        with tempfile.TemporaryDirectory() as path:
            {"terra": terra}[part](Path(path))


def terra(path: Path) -> None:
    """Place images by annotations, as many as CCT20 has images and four times as many."""
    print("| annotations | images kept | seconds |\n|---|---|---|")
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


if __name__ == "__main__":
    main()
