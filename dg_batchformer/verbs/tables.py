"""``tables``: model-selection tables."""

import argparse
import sys
from pathlib import Path

from dg_batchformer.errors import InputError
from dg_batchformer.report.collect import collect, refuse_mixed
from dg_batchformer.report.domainbed_tables import CHOOSE, domainbed_tables
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
        help="model-selection tables of a sweep, ours or DomainBed's",
        description="Print the tables of sweeps: test accuracy, mean and standard error over trials.",
        epilog=f"selection methods, which choose the step and the draw of hparams:\n{methods}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.set_defaults(run=run)
    add = verb.add_argument
    add("folders", nargs="+", type=Path, metavar="DIR",
        help="as results/quickstart, or the folder of a DomainBed sweep; several give one table")  # fmt: skip
    add("--format", choices=(*FORMATS, *_DOMAINBED), default="text",
        help="what is printed; domainbed and domainbed_latex: what DomainBed's collect_results prints "
        "for the same runs (default: %(default)s)")  # fmt: skip
    add("--selection", nargs="+", choices=(*METHODS, "all"), default=list(DEFAULT_METHODS), metavar="METHOD",
        help=f"one or more of those below, or all (default: {' '.join(DEFAULT_METHODS)})")  # fmt: skip
    add("--mix", action="store_true", help="pool runs in one cell that were trained under different conditions")
    add("--output", type=Path, metavar="DIR", help="also write tables.txt, .tex, .md, .csv and .html there")


_DOMAINBED = ("domainbed", "domainbed_latex")


def run(options: argparse.Namespace) -> int:
    """Print the tables of sweeps, and write them in every format."""
    if options.format in _DOMAINBED:
        return _print_as_domainbed(options)
    collection = collect(options.folders)
    if not options.mix:
        refuse_mixed(collection)
    sections = build_sections(collection, list(METHODS) if "all" in options.selection else options.selection)
    print(FORMATS[options.format](sections), end="")
    for note in collection.skipped:
        print(f"note: {note}", file=sys.stderr)
    if options.output is not None:
        rendered = {options.output / f"tables.{SUFFIXES[name]}": render(sections) for name, render in FORMATS.items()}
        options.output.mkdir(parents=True, exist_ok=True)
        for file, text in rendered.items():
            write_text(file, text)
            print(f"wrote {file}")
    return OK


def _print_as_domainbed(options: argparse.Namespace) -> int:
    """Print what DomainBed would: of our sweeps, of all runs that are in their folder."""
    strange = [name for name in options.selection if name not in CHOOSE]
    if strange:
        raise InputError(f"DomainBed has no selection method {strange[0]!r}; it has {', '.join(CHOOSE)}")
    if options.output is not None:
        raise InputError(f"--format {options.format} is printed only; write it to a file with >")
    ours = {folder: SweepFolder(folder) for folder in options.folders}
    folders = [sweep.runs if sweep.sweep_file.exists() else folder for folder, sweep in ours.items()]
    tables = domainbed_tables(folders, options.selection, latex=options.format == "domainbed_latex")
    print(tables, end="")
    return OK
