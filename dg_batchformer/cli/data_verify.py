"""``data verify``: check that a dataset is complete and as published."""

import argparse
import sys
from pathlib import Path

from dg_batchformer.cli.common import INCOMPLETE, OK, Verbs, say

_ABOUT = """\
Read and decode every image, and compare counts, content and folders with the published dataset. For your own data,
NAME is the name of their folder in --data_dir. Exit status: 0 if the dataset is right, 1 if not; problems are listed.
"""

_FINDINGS = """\
findings:
  errors    nothing (no images in environment/class/image); nested (a folder level too many); missing environment,
            empty environment, missing class, unknown class, counts; subset (counts are a part of those published);
            unreadable, empty, no image (despite its name), too large, truncated, broken
  errors in your own data, warnings in published datasets, which contain some
            unread (files that may be meant as images: in another format, or beside class folders);
            equal content: leak (across environments), two labels (across classes), duplicate
  warnings  missing class in your own data; case (names that differ in case alone); stray (files and folders that no
            run reads); tiny; 16-bit; other files (the published counts, not the published content)
  notes     rotated (by EXIF, which runs ignore); mode (palette, CMYK ..., which training converts to RGB)

keys of --format json:
  dataset folder images bytes    name, place and size
  right                          true if there are no errors
  fingerprint                    of the content, as in records; null if a file cannot be read
  version recognised_by          the published version, recognized by fingerprint or only by counts; or null
  counts                         images by environment and class
  published                      what the counts were compared with: version, source, images, counts; or null
  sizes modes                    [width, height] of min, median and max area; number of images by Pillow mode
  findings                       kind, severity, message, and items: the files or classes concerned
"""


def add_action(actions: Verbs) -> None:
    """Add the action and its options."""
    action = actions.add_parser(
        "verify",
        help="check that a dataset is complete and as published",
        description=_ABOUT,
        epilog=_FINDINGS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    action.set_defaults(run=run)
    add = action.add_argument
    add("name", metavar="NAME", help="a dataset of image folders, such as PACS, or a folder of environment/class/image")
    add("--data_dir", type=Path, metavar="DIR", help="folder of all datasets, such as DIR/PACS/sketch/dog/")
    add("--strict", action="store_true", help="treat warnings as errors")
    add("--format", choices=("text", "json"), default="text", help="output format (default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    """Print the findings on a dataset."""
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
