"""``data``: look after datasets, one action per file."""

from dg_batchformer.cli import data_cache, data_info, data_prepare, data_verify
from dg_batchformer.cli.common import Verbs

_ACTIONS = (data_prepare, data_verify, data_info, data_cache)  # in the order of --help


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its actions."""
    text = "Look after datasets: fetch or build them, check them, see them, decode them beforehand."
    verb = verbs.add_parser("data", help="fetch, check, show and cache a dataset", description=text)
    actions = verb.add_subparsers(metavar="ACTION", required=True)
    for action in _ACTIONS:
        action.add_action(actions)
