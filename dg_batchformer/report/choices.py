"""The runs and steps that a selection method chooses, arranged for the figures."""

from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from dg_batchformer.results.collection import Collection
from dg_batchformer.results.scores import Choice, choose, whole_trials
from dg_batchformer.results.selection import Method
from dg_batchformer.stats.comparison import Comparison, compare_pairs


class Choices:
    """Choices of a selection method in a collection, by dataset, row, environment and trial."""

    def __init__(self, collection: Collection, method: Method) -> None:
        self.collection = collection
        self.method = method
        self._compared: dict[tuple[str | None, tuple[tuple[str, str], ...]], list[Comparison]] = {}
        self._by_trial: dict[tuple[str, str, int], dict[int, Choice]] = defaultdict(dict)
        for (dataset, label, env, trial), choice in choose(collection, method).items():
            self._by_trial[dataset, label, env][trial] = choice

    def comparisons(self, pairs: Sequence[tuple[str, str]], dataset: str | None = None) -> list[Comparison]:
        """Compare pairs of rows (A, B) on one dataset, or on all; figures and verdicts share the result."""
        asked = dataset, tuple(pairs)
        if asked not in self._compared:
            runs = [run for run in self.collection.runs if dataset in (None, run.benchmark)]
            self._compared[asked] = compare_pairs(replace(self.collection, runs=runs), pairs, self.method)
        return self._compared[asked]

    def trials(self, dataset: str, label: str, env: int) -> Mapping[int, Choice]:
        """Return the choices of a cell by trial seed; empty if no run has records."""
        return self._by_trial.get((dataset, label, env), {})

    def averages(self, dataset: str, label: str) -> Mapping[int, float]:
        """Return the mean test accuracy over environments by trial, for trials with all environments."""
        whole = whole_trials({env: self.trials(dataset, label, env) for env in self.envs(dataset)})
        return {trial: fmean(choice.score.test for choice in by_env.values()) for trial, by_env in whole.items()}

    def envs(self, dataset: str) -> Sequence[int]:
        """Return the test environments of a dataset that have a choice."""
        return sorted({env for name, _, env in self._by_trial if name == dataset})

    def labels(self, dataset: str) -> Sequence[str]:
        """Return the rows that have a choice, in table order."""
        found = {label for name, label, _ in self._by_trial if name == dataset}
        return [label for label in self.collection.rows if label in found]

    def best_labels(self, dataset: str, most: int, among: Container[str] | None = None) -> Sequence[str]:
        """Return the rows with the highest mean test accuracy, in table order.

        Args:
            most: the maximum number of rows.
            among: rows to consider; None: all.

        """
        labels = [label for label in self.labels(dataset) if among is None or label in among]
        ranked = sorted(labels, key=lambda label: -self._mean(dataset, label))[:most]
        return [label for label in labels if label in ranked]

    def _mean(self, dataset: str, label: str) -> float:
        scores = [c.score.test for env in self.envs(dataset) for c in self.trials(dataset, label, env).values()]
        return sum(scores) / len(scores)

    @property
    def datasets(self) -> Sequence[str]:
        """The datasets that have a choice."""
        found = {dataset for dataset, _, _ in self._by_trial}
        return [dataset for dataset in self.collection.environments if dataset in found]

    def environment(self, dataset: str, env: int) -> str:
        """Return the name of an environment."""
        return self.collection.environments[dataset][env]
