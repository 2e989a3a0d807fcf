"""Explain why cells of a table are empty, or have fewer trials than others."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from dg_batchformer.results.collection import CollectedRun
from dg_batchformer.storage.folders import State
from dg_batchformer.text.counts import how_many


def lack(read: Sequence[CollectedRun], n: int, trials: Sequence[int], unmeasured: int, needs: str) -> str:
    """Return what a cell with n trials is missing; '' if it is complete.

    Args:
        read: the runs that the cell is computed from.
        n: number of trials in the cell.
        trials: all trial seeds.
        unmeasured: number of finished runs without the data that the metric needs.
        needs: description of this data.

    """
    went_on = {run.trial_seed for run in read if run.counts}  # trials in which others won the race
    untrained = Counter(
        run.state for run in read if not run.counts and not (run.state is State.OUTRACED and run.trial_seed in went_on)
    )
    diverged = sum(run.state is State.DIVERGED for run in read)
    reasons = []
    if untrained:
        states = ", ".join(f"{count} {state}" for state, count in untrained.items())
        trained = sum(run.counts for run in read)
        reasons.append(f"{trained} of {len(read)} runs trained, {states}")
    if diverged:
        reasons.append(f"{how_many(diverged, 'run')} diverged")
    if n < len(trials):
        none = [trial for trial in trials if all(run.trial_seed != trial for run in read)]
        if none:
            reasons.append(f"no run of trial {', '.join(map(str, none))}")
        if unmeasured:
            reasons.append(f"{unmeasured} of {len(read)} runs without {needs}")
        reasons = [f"{n} of {len(trials)} trials", *(reasons or ["the records lack values that this selection needs"])]
    return "; ".join(reasons)


class Lacks:
    """Collects incomplete cells, grouped by reason."""

    def __init__(self, labels: Sequence[str], columns: Sequence[str]) -> None:
        self.all = {(label, column) for label in labels for column in columns}
        self.cells: dict[str, list[tuple[str, str]]] = defaultdict(list)

    def add(self, label: str, column: str, reason: str) -> None:
        """Add the reason for an incomplete cell; '' is ignored."""
        if reason:
            self.cells[reason].append((label, column))

    def sentences(self) -> list[str]:
        """Return one note per reason, with its cells."""
        return [f"{self._where(cells)}: {reason}" for reason, cells in self.cells.items()]

    def _where(self, cells: Sequence[tuple[str, str]]) -> str:
        if set(cells) == self.all:
            return "every cell"
        columns: dict[str, list[str]] = defaultdict(list)
        for label, column in cells:
            columns[label].append(column)
        return "; ".join(f"{label} ({', '.join(names)})" for label, names in columns.items())
