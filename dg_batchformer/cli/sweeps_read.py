"""What the verbs share that read sweeps back: ``tables``, ``compare`` and ``report``."""

import argparse
import sys
from collections.abc import Iterable

from dg_batchformer.results.collect import collect, refuse_mixed
from dg_batchformer.results.collection import Collection


def add_reading(verb: argparse.ArgumentParser) -> None:
    """Add the options that ``collect_asked`` reads beside ``folders``."""
    text = "pool runs in one cell even if they were trained under different conditions"
    verb.add_argument("--mix", action="store_true", help=text)
    text = "also count runs that are not marked done, with their records so far"
    verb.add_argument("--unfinished", action="store_true", help=text)


def collect_asked(options: argparse.Namespace, *, predictions: bool = False) -> Collection:
    """Read the sweeps asked for; raise InputError where conditions differ within a cell, unless to be mixed."""
    collection = collect(options.folders, unfinished=options.unfinished, predictions=predictions)
    if not options.mix:
        refuse_mixed(collection)
    return collection


def print_notes(notes: Iterable[str]) -> None:
    """Say beside what is printed what there is to know of it."""
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
