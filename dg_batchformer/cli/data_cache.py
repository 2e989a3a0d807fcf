"""``data cache``: decode a dataset into the pixel cache."""

import argparse
from pathlib import Path

from dg_batchformer.catalog.custom import find_dataset
from dg_batchformer.cli.common import OK, Verbs
from dg_batchformer.errors import InputError
from dg_batchformer.spec.run import RunRequest


def add_action(actions: Verbs) -> None:
    """Add the action and its options."""
    text = (
        "Decode every image of a dataset once, into files that all runs on this machine share. Runs build the cache "
        "when they first need it; build it in advance if many runs are about to start. It is in "
        "$XDG_CACHE_HOME/dg_batchformer, or ~/.cache/dg_batchformer, and can be deleted at any time."
    )
    action = actions.add_parser("cache", help="decode a dataset into the pixel cache", description=text)
    action.set_defaults(run=run, works=True)
    add = action.add_argument
    add("name", metavar="NAME", help="a dataset of image folders, see: list datasets; or the name of your own data")
    add("--data_dir", type=Path, metavar="DIR", help="folder of all datasets, such as DIR/PACS/sketch/dog/")
    add("--image_size", type=int, default=224, metavar="PIXELS",
        help="size of the evaluated images (default: %(default)s)")  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Decode a dataset into the pixel cache."""
    from dg_batchformer.datasets import open_dataset
    from dg_batchformer.datasets.folders import ImageFolders
    from dg_batchformer.datasets.pixels import prepare_planes
    from dg_batchformer.training.cached import planes_for
    from dg_batchformer.training.console import Console
    from dg_batchformer.training.run_log import PIXEL_CACHE, caching

    if options.image_size < 1:
        raise InputError(f"--image_size is {options.image_size}; it must be a whole number, at least 1")
    spec = RunRequest(**find_dataset(options.name, options.data_dir)._asdict()).resolve()
    dataset = open_dataset(spec, options.data_dir, {"image_size": options.image_size})
    if not isinstance(dataset, ImageFolders):
        raise InputError(f"{options.name} is not read from image folders, so it has no cache")
    console = Console()
    for note in dataset.notes:
        console.note(note)
    for plane in prepare_planes(dataset, planes_for(options.image_size), caching(console, PIXEL_CACHE)):
        print(f"{plane}: {(plane / 'pixels').stat().st_size / 2**30:.2f} GiB")
    return OK
