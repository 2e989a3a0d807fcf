"""``tables``: model-selection tables."""

import argparse
import sys
from pathlib import Path

from dg_batchformer.report.collect import collect
from dg_batchformer.report.render import FORMATS, SUFFIXES
from dg_batchformer.report.selection import DEFAULT_METHODS, METHODS
from dg_batchformer.report.table import build_sections
from dg_batchformer.store import SweepFolder, write_text
from dg_batchformer.verbs.common import OK, Verbs


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its options."""
    methods = "\n".join(f"  {method.name:<22}{method.about}" for method in METHODS.values())
    verb = verbs.add_parser(
        "tables",
        help="model-selection tables of a sweep",
        description="Print the tables of a sweep: test accuracy, mean and standard error over trials.",
        epilog=f"selection methods, which choose the step and the draw of hparams:\n{methods}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.set_defaults(run=run)
    add = verb.add_argument
    add("folder", type=Path, metavar="DIR", help="as results/quickstart")
    add("--format", choices=tuple(FORMATS), default="text", help="what is printed (default: %(default)s)")
    add("--selection", nargs="+", choices=(*METHODS, "all"), default=list(DEFAULT_METHODS), metavar="METHOD",
        help=f"one or more of those below, or all (default: {' '.join(DEFAULT_METHODS)})")  # fmt: skip
    add("--compare_to", metavar="ROW", help="mark at the average the rows that differ significantly from this one")
    add("--output", type=Path, metavar="DIR", help="also write tables.txt, .tex, .md and .csv there")


def run(options: argparse.Namespace) -> int:
    """Print the tables of a sweep, and write them in every format."""
    collection = collect(SweepFolder(options.folder))
    sections = build_sections(collection, list(METHODS) if "all" in options.selection else options.selection)
    if options.compare_to is not None:
        from dg_batchformer.report.significance import mark_significant

        sections = mark_significant(sections, collection, options.compare_to)
    print(FORMATS[options.format](sections), end="")
    for file, lines in collection.skipped.items():
        print(f"skipped {lines} unreadable lines of {file}", file=sys.stderr)
    if options.output is not None:
        rendered = {options.output / f"tables.{SUFFIXES[name]}": render(sections) for name, render in FORMATS.items()}
        options.output.mkdir(parents=True, exist_ok=True)
        for file, text in rendered.items():
            write_text(file, text)
            print(f"wrote {file}")
    return OK
