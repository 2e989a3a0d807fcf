"""Notes of tables on draws and grid points whose chosen values lie at the edge of those tried."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from dg_batchformer.results.collection import CollectedRun
from dg_batchformer.results.edges import edges
from dg_batchformer.results.scores import Choice, Key

AT_AN_EDGE = "at the edge of the values tried, so that a wider range may be better"


def about_edges(runs: Sequence[CollectedRun], choices: Mapping[Key, Choice]) -> list[str]:
    """Return a note on hparams that selection mostly chooses at one edge: in more than half of its choices for a row.

    One choice at an edge means little, as one of 20 random draws is always the smallest.

    Args:
        runs: of one dataset.
        choices: the selected runs.

    """
    tried: dict[tuple[object, ...], list[Mapping[str, object]]] = defaultdict(list)
    for run in runs:
        if isinstance(hparams := run.constant.get("hparams"), Mapping):
            tried[run.label, run.test_envs, run.trial_seed].append(hparams)
    numbers: Counter[str] = Counter()  # of choices, by row
    at_edge: Counter[tuple[str, str, str]] = Counter()
    for (benchmark, label, _, trial), (run, _) in choices.items():
        others = tried.get((label, run.test_envs, trial), [])
        if runs and benchmark == runs[0].benchmark and len(others) > 1:
            numbers[label] += 1
            found = edges(run.constant["hparams"], others, sorted(run.constant["hparams"]))
            at_edge.update((label, name, edge) for name, edge in found.items())
    said = [
        f"{label}: {name} is the {edge} in {count} of {numbers[label]} choices"
        for (label, name, edge), count in at_edge.items()
        if 2 * count > numbers[label]
    ]
    return [f"{AT_AN_EDGE}: {'; '.join(said)}"] if said else []
