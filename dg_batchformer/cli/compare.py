"""``compare``: is one row of a sweep better than another?"""

import argparse
from pathlib import Path

from dg_batchformer.cli.common import OK, Verbs
from dg_batchformer.cli.sweeps_read import add_naming, add_reading, collect_asked, print_notes
from dg_batchformer.errors import InputError
from dg_batchformer.results.metrics import METRICS
from dg_batchformer.results.selection import METHODS
from dg_batchformer.text.spelling import one_form

_FORMATS = ("text", "markdown", "latex", "json")


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its options."""
    verb = verbs.add_parser(
        "compare",
        help="say whether one row is better than another, and how certain that is",
        description="Say whether row B improves on row A and by how much: the paired difference in test accuracy by "
        "environment, its 95 % interval, and tests.",
    )
    verb.set_defaults(run=run)
    add = verb.add_argument
    add("baseline", metavar="A", type=one_form, help="the baseline row, such as ERM; rows are named as in the tables")
    add("other", metavar="B", type=one_form, help="the row that may be better, such as ERM+BF")
    add(
        "folders",
        nargs="+",
        type=Path,
        metavar="DIR",
        help="folders of sweeps, such as results/quickstart, or of DomainBed sweeps",
    )
    add("--also", nargs="+", action="extend", type=one_form, default=[], metavar="ROW",
        help="more rows to compare with A; intervals and p-values are then corrected for their number")  # fmt: skip
    add("--selection", nargs="+", action="extend", choices=(*METHODS, "all"), metavar="METHOD",
        help="one or more selection methods, or all; see: tables --help (default: training-domain)")  # fmt: skip
    add("--metric", choices=[name for name, metric in METRICS.items() if not metric.lower_is_better],
        default="accuracy", help="the metric to compare, see tables --help; few-many: whether the gain on few-shot "
        "classes differs from that on many-shot ones (default: %(default)s)")  # fmt: skip
    add_reading(verb)
    add_naming(verb)
    add("--format", choices=_FORMATS, default="text", help="output format (default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    """Print comparisons of rows."""
    from dg_batchformer.stats.comparison import compare_rows
    from dg_batchformer.tables.render.comparison import COMPARISON_FORMATS

    for folder in options.folders:
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder; the order is: compare A B DIR, with more rows after --also")
    metric = METRICS[options.metric]
    collection = collect_asked(options, predictions=metric.measure is not None)
    asked = options.selection or ["training-domain"]
    methods = list(METHODS) if "all" in asked else asked
    comparisons = compare_rows(collection, options.baseline, [options.other, *options.also], methods, metric)
    print(COMPARISON_FORMATS[options.format](comparisons), end="")
    print_notes(collection.skipped)
    return OK
