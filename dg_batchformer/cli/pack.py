"""``pack``: the records of a sweep in one file that can be committed."""

import argparse
from pathlib import Path

from dg_batchformer.cli.common import OK, Verbs
from dg_batchformer.results.our_sweep import pack
from dg_batchformer.storage.folders import SweepFolder


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its options."""
    verb = verbs.add_parser(
        "pack",
        help="write the records of a sweep to one file, to commit with its tables",
        description="Write DIR/records.parquet: the records, states and manifest of a sweep, without its run folders. "
        "tables, compare and report print the same from it, and sweep continues from it. pandas reads it too, with a "
        "row for every record.",
    )
    verb.set_defaults(run=run, works=True)
    verb.add_argument("folder", type=Path, metavar="DIR", help="folder of a sweep, such as results/quickstart")


def run(options: argparse.Namespace) -> int:
    """Pack a sweep."""
    folder = SweepFolder(options.folder)
    pack(folder)
    print(f"wrote {folder.packed_file}")
    return OK
