"""``tables``: model-selection tables, beside published numbers if asked, or beside what a sweep expects."""

import argparse
import sys
from pathlib import Path

from dg_batchformer.errors import InputError
from dg_batchformer.report.collect import Collection, collect
from dg_batchformer.report.expect import compare, is_reproduced, read_expected
from dg_batchformer.report.published.bibliography import bibliography
from dg_batchformer.report.published.match import ALL, add_published
from dg_batchformer.report.render import FILES, FORMATS
from dg_batchformer.report.render.expectation import expectation
from dg_batchformer.report.selection import DEFAULT_METHODS, METHODS
from dg_batchformer.report.table import Section, build_sections
from dg_batchformer.store import SweepFolder, write_text
from dg_batchformer.verbs.common import INCOMPLETE, OK, Verbs


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
    add("--format", choices=tuple(FORMATS), help="what is printed (default: text)")
    add("--selection", nargs="+", choices=(*METHODS, "all"), metavar="METHOD",
        help=f"one or more of those below, or all (default: {' '.join(DEFAULT_METHODS)})")  # fmt: skip
    add("--published", nargs="*", metavar="NAME",
        help="add published rows had with the same dataset, backbone, weights and selection: of the sweep's "
        f"algorithms, of those named, or {ALL}")  # fmt: skip
    add("--expect", action="store_true",
        help="instead, set averages beside those that the sweep expects; status 1 if one is outside")  # fmt: skip
    add("--output", type=Path, metavar="DIR",
        help=f"also write {', '.join(FILES.values())} there, and tables.bib with what they cite")  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Print the tables of a sweep, and write them in every format."""
    if options.expect:
        return _expect(options)
    collection = collect(SweepFolder(options.folder))
    asked = options.selection or list(DEFAULT_METHODS)
    sections = build_sections(collection, list(METHODS) if "all" in asked else asked)
    if options.published is not None:
        sections = add_published(sections, collection.runs, options.published)
    print(FORMATS[options.format or "text"](sections), end="")
    _report_skipped(collection)
    if options.output is not None:
        _write(options.output, sections)
    return OK


def _expect(options: argparse.Namespace) -> int:
    for name in ("format", "selection", "published", "output"):
        if getattr(options, name) is not None:
            raise InputError(f"--expect prints one table, by the selection that the sweep expects; drop --{name}")
    folder = SweepFolder(options.folder)
    expected = read_expected(folder)
    collection = collect(folder)
    [section] = build_sections(collection, [expected.selection])
    comparisons = compare(section, expected)
    print(expectation(expected, comparisons, section.notes), end="")
    _report_skipped(collection)
    return OK if is_reproduced(comparisons) else INCOMPLETE


def _report_skipped(collection: Collection) -> None:
    for file, lines in collection.skipped.items():
        print(f"skipped {lines} unreadable lines of {file}", file=sys.stderr)


def _write(folder: Path, sections: list[Section]) -> None:
    texts = {FILES[name]: render(sections) for name, render in FORMATS.items()}
    if entries := bibliography(sections):
        texts["tables.bib"] = entries
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_text(folder / name, text)
        print(f"wrote {folder / name}")
