"""``data``: prepare, verify, inspect and cache datasets; one module per action."""

from dg_batchformer.cli import data_cache, data_info, data_prepare, data_verify
from dg_batchformer.cli.common import Verbs

_ACTIONS = (data_prepare, data_verify, data_info, data_cache)  # in the order of --help


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its actions."""
    text = "Prepare datasets: download or build, verify, inspect and cache them."
    verb = verbs.add_parser("data", help="download, verify, inspect and cache a dataset", description=text)
    actions = verb.add_subparsers(metavar="ACTION", required=True)
    for action in _ACTIONS:
        action.add_action(actions)
