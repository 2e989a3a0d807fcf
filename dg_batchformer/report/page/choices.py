"""Which run a selection method takes of every dataset, row, environment and trial: what the figures show."""

from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple

from dg_batchformer.report.collection import CollectedRun, Collection
from dg_batchformer.report.selection import Method, Score, best_draw
from dg_batchformer.report.table import runs_by_draw


class Choice(NamedTuple):
    """The run that holds out one environment with the draw that was selected, and its score."""

    run: CollectedRun
    score: Score


class Choices:
    """What a selection method chose of a collection."""

    def __init__(self, collection: Collection, method: Method) -> None:
        self.collection = collection
        self.method = method
        self._by_trial: dict[tuple[str, str, int], dict[int, Choice]] = {}
        for (dataset, label, trial), by_draw in runs_by_draw(collection).items():
            num_envs = len(collection.environments[dataset])
            for env in range(num_envs):
                best = best_draw(method, by_draw, env, num_envs)
                if best is not None:
                    run = next(run for run in by_draw[best[0]] if env in run.reported)
                    self._by_trial.setdefault((dataset, label, env), {})[trial] = Choice(run, best[1])

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
