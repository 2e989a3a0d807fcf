"""What a selection method takes, as the figures of the page ask for it."""

from collections import defaultdict
from collections.abc import Container, Mapping, Sequence

from dg_batchformer.results.collection import Collection
from dg_batchformer.results.scores import Choice, choose
from dg_batchformer.results.selection import Method


class Choices:
    """What a selection method chose of a collection."""

    def __init__(self, collection: Collection, method: Method) -> None:
        self.collection = collection
        self.method = method
        self._by_trial: dict[tuple[str, str, int], dict[int, Choice]] = defaultdict(dict)
        for (dataset, label, env, trial), choice in choose(collection, method).items():
            self._by_trial[dataset, label, env][trial] = choice

    def trials(self, dataset: str, label: str, env: int) -> Mapping[int, Choice]:
        """Return the choices of a cell by trial seed; none where nothing is trained."""
        return self._by_trial.get((dataset, label, env), {})

    def averages(self, dataset: str, label: str) -> Mapping[int, float]:
        """Return the mean test accuracy by trial, of the trials that have all environments held out."""
        by_env = [self.trials(dataset, label, env) for env in self.envs(dataset)]
        complete = [trial for trial in by_env[0] if all(trial in trials for trials in by_env)] if by_env else []
        return {trial: sum(trials[trial].score.test for trials in by_env) / len(by_env) for trial in complete}

    def envs(self, dataset: str) -> Sequence[int]:
        """Return the environments that are held out somewhere."""
        return sorted({env for name, _, env in self._by_trial if name == dataset})

    def labels(self, dataset: str) -> Sequence[str]:
        """Return the rows that have a score, in table order."""
        found = {label for name, label, _ in self._by_trial if name == dataset}
        return [label for label in self.collection.rows if label in found]

    def best_labels(self, dataset: str, most: int, among: Container[str] | None = None) -> Sequence[str]:
        """Return the rows, of all or among some, that test best on average, at most so many, in table order."""
        labels = [label for label in self.labels(dataset) if among is None or label in among]
        ranked = sorted(labels, key=lambda label: -self._mean(dataset, label))[:most]
        return [label for label in labels if label in ranked]

    def _mean(self, dataset: str, label: str) -> float:
        scores = [c.score.test for env in self.envs(dataset) for c in self.trials(dataset, label, env).values()]
        return sum(scores) / len(scores)

    @property
    def datasets(self) -> Sequence[str]:
        """The datasets of which something was chosen."""
        found = {dataset for dataset, _, _ in self._by_trial}
        return [dataset for dataset in self.collection.environments if dataset in found]

    def environment(self, dataset: str, env: int) -> str:
        """Return the name of an environment."""
        return self.collection.environments[dataset][env]
