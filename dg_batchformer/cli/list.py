"""``list``: what there is."""

import argparse

from dg_batchformer.cli.common import OK, Verbs
from dg_batchformer.spec.protocols import DEFAULT_PROTOCOL


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its options."""
    kinds = ("algorithms", "wrappers", "datasets", "protocols", "backbones", "hparams")
    text = "List what there is, one line each; with NAME, that one in full, with a glob those that match."
    verb = verbs.add_parser(
        "list", help="algorithms, wrappers, datasets, protocols, backbones, hparams", description=text
    )
    verb.set_defaults(run=run)
    add = verb.add_argument
    add("kind", choices=kinds, metavar="KIND", help=f"one of {', '.join(kinds)}")
    add("name", nargs="?", metavar="NAME",
        help="the one to show in full, or a glob, as 'timm/vit_*'; for hparams: the algorithm that has them, as "
        "SWAD+CORAL+BF (default: ERM)",
    )  # fmt: skip
    add("--dataset", metavar="NAME", default="PACS", help="for hparams, on which dataset (default: %(default)s)")
    add("--protocol", metavar="NAME", default=DEFAULT_PROTOCOL,
        help="for hparams, under which protocol (default: %(default)s)")  # fmt: skip
    add("--plugins", nargs="+", default=[], metavar="MODULE",
        help="modules that define further algorithms, as train takes them")  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Show what there is."""
    from dg_batchformer.cli.listing import list_kind
    from dg_batchformer.plugins.load import load_plugins

    load_plugins(options.plugins)
    print(list_kind(options.kind, options.name, dataset=options.dataset, protocol=options.protocol))
    return OK
