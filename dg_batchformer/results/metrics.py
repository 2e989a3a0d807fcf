"""Metrics for tables: the recorded accuracy, or metrics computed from predictions."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from dg_batchformer.results.collection import CollectedRun
from dg_batchformer.results.predictions import Predictions, read_predictions
from dg_batchformer.results.selection import Score
from dg_batchformer.storage.folders import RunFolder

_BINS = 15


@dataclass(frozen=True)
class Metric:
    """A metric with values in [0, 1].

    Args:
        name: for the command line. title: for tables. about: definition in one sentence.
        measure: computes it from the predictions on a split; None for the accuracy, which is recorded.
        lower_is_better: whether lower values are better.

    """

    name: str
    title: str
    about: str = ""
    measure: Callable[[Predictions], float] | None = None
    lower_is_better: bool = False

    def worst(self, values: list[float]) -> float:
        """Return the worst value."""
        return max(values) if self.lower_is_better else min(values)


def balanced_accuracy(predictions: Predictions) -> float:
    """Compute the mean recall over classes with samples."""
    return float(_recalls(predictions).mean())


def worst_class_accuracy(predictions: Predictions) -> float:
    """Compute the lowest recall of a class with samples."""
    return float(_recalls(predictions).min())


def _recalls(predictions: Predictions) -> NDArray[np.float64]:
    _, classes = np.unique(predictions.label, return_inverse=True)
    return np.bincount(classes, predictions.label == predictions.predicted) / np.bincount(classes)


def expected_calibration_error(predictions: Predictions, bins: int = _BINS) -> float:
    """Compute the mean gap between confidence and accuracy over bins of equal width (Guo et al., 2017).

    A bin contains confidences above its lower edge, up to and including its upper edge; its weight is its size.
    """
    places = np.clip(np.ceil(predictions.confidence * bins).astype(int) - 1, 0, bins - 1)
    correct = predictions.label == predictions.predicted
    gaps = np.bincount(places, correct, bins) - np.bincount(places, predictions.confidence, bins)
    return float(np.abs(gaps).sum() / len(places))


ACCURACY = Metric("accuracy", "test accuracy")
_METRICS = (
    ACCURACY,
    Metric(
        "balanced",
        "balanced test accuracy",
        "the mean accuracy over classes; classes without images do not count",
        balanced_accuracy,
    ),
    Metric(
        "worst-class",
        "worst-class test accuracy",
        "the lowest accuracy of a class; classes without images do not count",
        worst_class_accuracy,
    ),
    Metric(
        "ece",
        "expected calibration error on the test environment",
        f"the mean gap between confidence and accuracy over {_BINS} equal bins of confidence; lower is better",
        expected_calibration_error,
        lower_is_better=True,
    ),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _METRICS}


class Measurements:
    """A metric of the final models of runs; every prediction file is read once."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self._known: dict[tuple[str, int], tuple[float, float | None] | None] = {}

    def has(self, run: CollectedRun, env: int) -> bool:
        """Return whether the metric is available for a run on its test environment."""
        return self.metric.measure is None or self._of(run, env) is not None

    def score(self, selected: Score, run: CollectedRun, env: int) -> Score | None:
        """Return the selected score with this metric instead of the accuracy; None if it is not available.

        Args:
            selected: score of the selected step.
            run: of the selected draw, with ``env`` as its only test environment.
            env: the test environment.

        """
        if self.metric.measure is None:
            return selected
        measured = self._of(run, env)
        return None if measured is None else replace(selected, test=measured[0], in_domain=measured[1])

    def _of(self, run: CollectedRun, env: int) -> tuple[float, float | None] | None:
        key = str(run.path), env
        if key not in self._known:
            predictions = read_predictions(RunFolder(run.path).predictions_file)
            self._known[key] = None if predictions is None else self._measure(predictions, run, env)
        return self._known[key]

    def _measure(self, predictions: Predictions, run: CollectedRun, env: int) -> tuple[float, float | None] | None:
        """Return the metric on the ``in`` split of the test environment, and its mean over validation splits."""
        assert self.metric.measure is not None
        test = predictions.of(env, "in")
        validating = run.train_envs or [other for other in np.unique(predictions.env).tolist() if other != env]
        others = [predictions.of(other, "out") for other in validating]
        if not len(test.label):
            return None
        in_domain = [self.metric.measure(held_out) for held_out in others if len(held_out.label)]
        return self.metric.measure(test), fmean(in_domain) if in_domain else None
