"""Options and functions of the commands that read sweeps: ``tables``, ``compare``, ``report`` and ``export``."""

import argparse
import sys
from collections.abc import Iterable

from dg_batchformer.errors import InputError
from dg_batchformer.results.arrange import Arrangement
from dg_batchformer.results.collect import collect, refuse_mixed
from dg_batchformer.results.collection import Collection
from dg_batchformer.text.printable import one_line
from dg_batchformer.text.spelling import one_form


def add_reading(verb: argparse.ArgumentParser) -> None:
    """Add ``--mix``, ``--unfinished`` and ``--search``, which ``collect_asked`` reads."""
    text = "pool runs in one cell even if they were trained under different conditions"
    verb.add_argument("--mix", action="store_true", help=text)
    text = "also count runs that are not marked done, with their records so far"
    verb.add_argument("--unfinished", action="store_true", help=text)
    text = "for a sweep with a search: read the runs of the search, not those of its winners"
    verb.add_argument("--search", action="store_true", help=text)


def add_naming(verb: argparse.ArgumentParser) -> None:
    """Add ``--grid_points`` and ``--rename``, which ``collect_asked`` reads."""
    text = "show every grid point as a row, such as 'ERM, lr 1e-05', instead of the one that a selection chooses"
    verb.add_argument("--grid_points", action="store_true", default=None, help=text)
    text = "new names of rows; SWEEP:ROW=NAME renames the row of one of several sweeps only"
    verb.add_argument("--rename", nargs="+", action="extend", metavar="ROW=NAME", help=text)


def add_rows(verb: argparse.ArgumentParser) -> None:
    """Add ``--rows`` and ``--order``, which ``collect_asked`` reads, and ``--columns``."""
    text = "show these rows only, in this order, by their new names"
    verb.add_argument("--rows", nargs="+", action="extend", type=one_form, metavar="ROW", help=text)
    text = "show these rows first, in this order; the others follow"
    verb.add_argument("--order", nargs="+", action="extend", type=one_form, metavar="ROW", help=text)
    text = "show these columns only, in this order: environments, datasets, Average, Worst or In-domain"
    verb.add_argument("--columns", nargs="+", action="extend", type=one_form, metavar="COLUMN", help=text)


ARRANGING = ("grid_points", "rename", "rows", "order", "columns")
"""The options of ``add_naming`` and ``add_rows``."""


def _arrangement(options: argparse.Namespace) -> Arrangement:
    """Return the rows that the options ask for; raise InputError for a name without a new one."""
    given = {name: getattr(options, name, None) for name in ARRANGING}
    names = {}
    for text in given["rename"] or ():
        row, _, name = map(one_form, text.partition("="))
        if not row or not name.strip():
            raise InputError(f"--rename takes ROW=NAME, such as ERM+BF=Ours, got {text!r}")
        names[row] = one_line(name)
    return Arrangement(bool(given["grid_points"]), names, given["rows"] or (), given["order"] or ())


def collect_asked(options: argparse.Namespace, *, predictions: bool = False) -> Collection:
    """Return the runs of ``options.folders``.

    Raises:
        InputError: runs of one cell were trained under different conditions, without ``--mix``; or the options name
            an unknown row.

    """
    collection = collect(
        options.folders,
        unfinished=options.unfinished,
        predictions=predictions,
        search=options.search,
        arrangement=_arrangement(options),
    )
    if not options.mix:
        refuse_mixed(collection)
    return collection


def print_notes(notes: Iterable[str]) -> None:
    """Print notes to stderr."""
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
