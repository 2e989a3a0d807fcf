"""``report``: one HTML page about a sweep."""

import argparse
from pathlib import Path

from dg_batchformer.cli.common import OK, Verbs
from dg_batchformer.cli.sweeps_read import ARRANGING, add_naming, add_reading, add_rows, collect_asked, print_notes
from dg_batchformer.errors import InputError
from dg_batchformer.results.selection import METHODS
from dg_batchformer.storage.folders import write_text


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its options."""
    verb = verbs.add_parser(
        "report",
        help="write one HTML page about a sweep: tables, figures, failures, provenance",
        description="Write one self-contained HTML page: tables for every selection method, figures, failures, the "
        "provenance of the numbers, and the commands that reproduce them.",
    )
    verb.set_defaults(run=run, works=True)
    add = verb.add_argument
    add("folders", nargs="+", type=Path, metavar="DIR",
        help="folder of a sweep such as results/quickstart, of a run, or of a DomainBed sweep; several make one "
        "page")  # fmt: skip
    add_reading(verb)
    add_rows(verb)
    add_naming(verb)
    add("--output", type=Path, metavar="FILE", help="the page (default: DIR/report.html)")
    add("--figures", type=Path, metavar="DIR",
        help="instead, write every figure there as SVG and PDF, at the column widths of ICML, CVPR and NeurIPS, and "
        "its data as CSV")  # fmt: skip
    add("--selection", choices=METHODS, default="training-domain", metavar="METHOD",
        help="selection method of --figures, see: tables --help (default: %(default)s)")  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Write the report of sweeps, or its figures."""
    if options.figures is not None:
        return _write_figures(options)
    folders, file = options.folders, options.output
    if file is None and len(folders) > 1:
        raise InputError(f"a page about {len(folders)} sweeps has no default place; name it with --output FILE")
    file = file or folders[0] / "report.html"
    collection = collect_asked(options)
    from dg_batchformer.report.page import build_page  # loads matplotlib and Jinja2

    given = {name: getattr(options, name) for name in ("mix", "unfinished", "search", *ARRANGING, "output")}
    page = build_page(collection, folders, **given)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, page)
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror}; name another file with --output FILE") from None
    print_notes(collection.skipped)
    print(f"wrote {file}")
    return OK


def _write_figures(options: argparse.Namespace) -> int:
    """Write the figures of sweeps for a paper."""
    if options.output is not None:
        raise InputError("--figures writes no page; drop --output, or run report once more without --figures")
    collection = collect_asked(options)
    from dg_batchformer.report.plots import write_figures  # loads matplotlib

    try:
        written = write_figures(collection, options.figures, selection=options.selection)
    except OSError as error:
        raise InputError(f"cannot write to {options.figures}: {error.strerror}; name another folder") from None
    print_notes(collection.skipped)
    print(f"wrote {len(written)} files to {options.figures}")
    return OK
