"""Why cells of a table are empty, or of fewer trials than there are."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from dg_batchformer.results.collection import CollectedRun, how_many
from dg_batchformer.storage.folders import State


def lack(read: Sequence[CollectedRun], n: int, trials: Sequence[int], unmeasured: int) -> str:
    """Return what a cell of n trials lacks, of the runs that it is read from; '' for nothing.

    Args:
        unmeasured: runs that are done, but lack the predictions that the metric needs.

    """
    untrained = Counter(run.state for run in read if not run.counts)
    diverged = sum(run.state is State.DIVERGED for run in read)
    reasons = []
    if untrained:
        states = ", ".join(f"{count} {state}" for state, count in untrained.items())
        reasons.append(f"{len(read) - untrained.total()} of {len(read)} runs trained, {states}")
    if diverged:
        reasons.append(f"{how_many(diverged, 'run')} diverged")
    if n < len(trials):
        none = [trial for trial in trials if all(run.trial_seed != trial for run in read)]
        if none:
            reasons.append(f"no run of trial {', '.join(map(str, none))}")
        if unmeasured:
            file = "predictions.npz that can be read; train and sweep write it with --predictions"
            reasons.append(f"{unmeasured} of {len(read)} runs without a {file}")
        reasons = [f"{n} of {len(trials)} trials", *(reasons or ["the records lack what this selection reads"])]
    return "; ".join(reasons)


class Lacks:
    """What cells lack, said once per reason."""

    def __init__(self, labels: Sequence[str], columns: Sequence[str]) -> None:
        self.all = {(label, column) for label in labels for column in columns}
        self.cells: dict[str, list[tuple[str, str]]] = defaultdict(list)

    def add(self, label: str, column: str, reason: str) -> None:
        """Take what a cell lacks; '' for nothing."""
        if reason:
            self.cells[reason].append((label, column))

    def sentences(self) -> list[str]:
        """Return each reason with its cells."""
        return [f"{self._where(cells)}: {reason}" for reason, cells in self.cells.items()]

    def _where(self, cells: Sequence[tuple[str, str]]) -> str:
        if set(cells) == self.all:
            return "every cell"
        columns: dict[str, list[str]] = defaultdict(list)
        for label, column in cells:
            columns[label].append(column)
        return "; ".join(f"{label} ({', '.join(names)})" for label, names in columns.items())
