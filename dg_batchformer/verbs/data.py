"""``data``: look after datasets, one action per file."""

from dg_batchformer.verbs import data_cache, data_prepare
from dg_batchformer.verbs.common import Verbs

_ACTIONS = (data_prepare, data_cache)  # in the order of --help


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its actions."""
    verb = verbs.add_parser("data", help="fetch, build and cache datasets", description="Look after datasets.")
    actions = verb.add_subparsers(metavar="ACTION", required=True)
    for action in _ACTIONS:
        action.add_action(actions)
