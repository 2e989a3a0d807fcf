"""Options and functions of the commands that read sweeps: ``tables``, ``compare``, ``report`` and ``export``."""

import argparse
import sys
from collections.abc import Iterable

from dg_batchformer.results.collect import collect, refuse_mixed
from dg_batchformer.results.collection import Collection


def add_reading(verb: argparse.ArgumentParser) -> None:
    """Add ``--mix`` and ``--unfinished``, which ``collect_asked`` reads."""
    text = "pool runs in one cell even if they were trained under different conditions"
    verb.add_argument("--mix", action="store_true", help=text)
    text = "also count runs that are not marked done, with their records so far"
    verb.add_argument("--unfinished", action="store_true", help=text)


def collect_asked(options: argparse.Namespace, *, predictions: bool = False) -> Collection:
    """Return the runs of ``options.folders``.

    Raises:
        InputError: runs of one cell were trained under different conditions, without ``--mix``.

    """
    collection = collect(options.folders, unfinished=options.unfinished, predictions=predictions)
    if not options.mix:
        refuse_mixed(collection)
    return collection


def print_notes(notes: Iterable[str]) -> None:
    """Print notes to stderr."""
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
