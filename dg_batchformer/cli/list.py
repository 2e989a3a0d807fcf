"""``list``: list algorithms, wrappers, datasets, protocols, backbones and hparams."""

import argparse

from dg_batchformer.cli.common import OK, Verbs
from dg_batchformer.spec.protocols import DEFAULT_PROTOCOL


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its options."""
    kinds = ("algorithms", "wrappers", "datasets", "protocols", "backbones", "hparams")
    text = (
        "List what is available, one line each. With a NAME, show that one in full; with a glob, list all that match."
    )
    verb = verbs.add_parser(
        "list", help="list algorithms, wrappers, datasets, protocols, backbones, hparams", description=text
    )
    verb.set_defaults(run=run)
    add = verb.add_argument
    add("kind", choices=kinds, metavar="KIND", help=f"one of {', '.join(kinds)}")
    add("name", nargs="?", metavar="NAME",
        help="the name to show in full, or a glob such as 'timm/vit_*'; for hparams: the algorithm, such as "
        "SWAD+CORAL+BF (default: ERM)",
    )  # fmt: skip
    add("--dataset", metavar="NAME", default="PACS", help="dataset to show hparams for (default: %(default)s)")
    add("--protocol", metavar="NAME", default=DEFAULT_PROTOCOL,
        help="protocol to show hparams for (default: %(default)s)")  # fmt: skip
    add("--plugins", nargs="+", default=[], metavar="MODULE",
        help="modules that define more algorithms, as in train")  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Print a list, or one entry in full."""
    from dg_batchformer.cli.listing import list_kind
    from dg_batchformer.plugins.load import load_plugins

    load_plugins(options.plugins)
    print(list_kind(options.kind, options.name, dataset=options.dataset, protocol=options.protocol))
    return OK
