"""``list``: list algorithms, wrappers and extensions of other kinds, and hparams."""

import argparse

from dg_batchformer.catalog.installed import KINDS
from dg_batchformer.cli.common import OK, Verbs, import_plugins
from dg_batchformer.spec.protocols import DEFAULT_PROTOCOL


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its options."""
    kinds = (*KINDS, "hparams")
    text = (
        "List what is available, one line each. With a NAME, show that one in full; with a glob, list all that match."
    )
    verb = verbs.add_parser(
        "list", help="list algorithms, wrappers, datasets, backbones, protocols, hparams ...", description=text
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
    add("--plugins", nargs="+", action="extend", default=[], metavar="MODULE",
        help="modules that add more, as in train")  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Print a list, or one entry in full."""
    from dg_batchformer.cli.listing import list_kind

    import_plugins(options.plugins)
    print(list_kind(options.kind, options.name, dataset=options.dataset, protocol=options.protocol))
    return OK
