"""Notes of tables on searches: which selection chose the hparams, among how many, and which lie at an edge."""

from collections import defaultdict
from collections.abc import Sequence

from dg_batchformer.results.collection import CollectedRun
from dg_batchformer.results.selection import Method
from dg_batchformer.results.winners import Winner
from dg_batchformer.text.counts import how_many, of_trials


def about_searches(runs: Sequence[CollectedRun], method: Method) -> list[str]:
    """Return notes on the searches whose winners a table shows.

    Args:
        runs: of one dataset.
        method: selection method of the table, which chooses the steps.

    """
    winners: dict[tuple[str, str], Winner] = {}
    for run in runs:
        if run.winner is not None:
            winners.setdefault((run.label, run.winner.run), run.winner)
    rows: dict[str, dict[str, None]] = defaultdict(dict)
    edges: dict[str, list[str]] = defaultdict(list)
    for (label, _), winner in winners.items():
        rows[_chosen(winner, method)][label] = None
        for name, edge in winner.edges.items():
            edges[f"{label}: {name} is the {edge} value tried"].append(winner.place)
    every = len({label for label, _ in winners})
    notes = [text if len(labels) == every else f"{', '.join(labels)}: {text}" for text, labels in rows.items()]
    if edges:
        said = "; ".join(f"{text} on {', '.join(places)}" for text, places in edges.items())
        notes.append(f"winners at the edge of the searched range, so that a wider range may be better: {said}")
    return notes


def _chosen(winner: Winner, method: Method) -> str:
    """Return how the hparams of a winner were chosen."""
    failed = f", without {how_many(winner.failed, 'failed run')}" if winner.failed else ""
    stopped = f", of which a race stopped {winner.stopped}," if winner.stopped else ""
    source = f" of {winner.source}" if winner.source else ""
    steps = "" if winner.selection == method.name else f"; {method.name} selection chose the steps only"
    return (
        f"hparams were chosen by {winner.selection} selection among {winner.tried} candidates{stopped} on "
        f"{of_trials(winner.trials)}{source}{failed}, separately for every test environment{steps}"
    )
