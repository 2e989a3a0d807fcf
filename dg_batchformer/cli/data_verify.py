"""``data verify``: whether the files of a dataset are whole, and those that were published."""

import argparse
import sys
from pathlib import Path

from dg_batchformer.cli.common import INCOMPLETE, OK, Verbs, say

_ABOUT = """\
Read and decode every image, and hold counts, content and folders against what is published. For a dataset of your own,
NAME is its folder. Exit status: 0 if the dataset is right, 1 if something is not, with the list of it.
"""

_FINDINGS = """\
what is found:
  errors    nested (a folder level too many), missing environment, empty environment, missing class, unknown class,
            counts; subset (counts are a part of those published); unreadable, empty, no image (whatever the name says),
            too large, truncated, broken
  errors in data of your own, warnings in published datasets, which have them
            unread (files that could be meant as images, in another format or beside class folders);
            equal content: leak (across environments), two labels (across classes), duplicate
  warnings  missing class in data of your own; stray (files and folders that no run reads); tiny; 16-bit;
            other files (the published counts, not the published content)
  notes     rotated (by EXIF, which no run applies); mode (palette, CMYK ..., which training converts to RGB)

keys of --format json:
  dataset folder images bytes    name, place and size
  right                          whether nothing is an error
  fingerprint                    of the content, as in records; null where a file cannot be read
  version recognised_by          the published version that it is, by fingerprint or counts (content unknown); or null
  counts                         images by environment and class
  published                      what the counts were held against: version, source, images, counts; or null
  sizes modes                    [width, height] of min, median and max area; images by Pillow's name of their mode
  findings                       kind, severity, message, and items: every file or class of it
"""


def add_action(actions: Verbs) -> None:
    """Add the action and its options."""
    action = actions.add_parser(
        "verify",
        help="whether a dataset is whole and as published",
        description=_ABOUT,
        epilog=_FINDINGS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    action.set_defaults(run=run)
    add = action.add_argument
    add("name", metavar="NAME", help="a dataset of image folders, as PACS, or a folder of environment/class/image")
    add("--data_dir", type=Path, metavar="DIR", help="holds the folders of datasets, as DIR/PACS/sketch/dog/")
    add("--strict", action="store_true", help="warnings are errors")
    add("--format", choices=("text", "json"), default="text", help="what is printed (default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    """Print what is right and wrong with a dataset."""
    from tqdm import tqdm

    from dg_batchformer.datasets.integrity import inspect_files
    from dg_batchformer.datasets.tree import read_tree
    from dg_batchformer.datasets.verification_text import as_json, as_text
    from dg_batchformer.datasets.verify import verify

    tree = read_tree(options.name, options.data_dir)
    files = [file for _, _, file in tree.placed]
    quiet = not sys.stderr.isatty()
    found = list(tqdm(inspect_files(files), "verify", len(files), unit="image", disable=quiet, leave=False))
    verification = verify(tree, found, strict=options.strict)
    say({"text": as_text, "json": as_json}[options.format](verification))
    return OK if verification.is_right else INCOMPLETE
