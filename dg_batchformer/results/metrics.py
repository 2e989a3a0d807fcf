"""What tables report of a model: its accuracy, as recorded, or what only its predictions on every sample tell."""

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
    """A metric, a fraction.

    Args:
        name: as people type it. title: as tables say it. about: what it is, in one sentence.
        measure: of the predictions on one split; None for the accuracy, which records hold.
        lower_is_better: whether the best is the lowest.

    """

    name: str
    title: str
    about: str = ""
    measure: Callable[[Predictions], float] | None = None
    lower_is_better: bool = False

    def worst(self, values: list[float]) -> float:
        """Return the worst of some values."""
        return max(values) if self.lower_is_better else min(values)


def balanced_accuracy(predictions: Predictions) -> float:
    """Return the mean recall over the classes that have samples."""
    return float(_recalls(predictions).mean())


def worst_class_accuracy(predictions: Predictions) -> float:
    """Return the lowest recall of a class that has samples."""
    return float(_recalls(predictions).min())


def _recalls(predictions: Predictions) -> NDArray[np.float64]:
    _, classes = np.unique(predictions.label, return_inverse=True)
    return np.bincount(classes, predictions.label == predictions.predicted) / np.bincount(classes)


def expected_calibration_error(predictions: Predictions, bins: int = _BINS) -> float:
    """Return the mean gap between confidence and accuracy over equally wide bins (Guo et al., 2017).

    A bin holds the confidences above its lower edge, up to its upper edge, and weighs what it holds.
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
        "the mean accuracy over classes; those without an image do not count",
        balanced_accuracy,
    ),
    Metric(
        "worst-class",
        "worst-class test accuracy",
        "the accuracy on the class with the lowest; those without an image do not count",
        worst_class_accuracy,
    ),
    Metric(
        "ece",
        "expected calibration error on the test environment",
        f"the mean gap between confidence and accuracy over {_BINS} equal bins of confidence; the lowest is best",
        expected_calibration_error,
        lower_is_better=True,
    ),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _METRICS}


class Measurements:
    """A metric of the models that runs returned; every file of predictions is read once."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self._known: dict[tuple[str, int], tuple[float, float | None] | None] = {}

    def has(self, run: CollectedRun, env: int) -> bool:
        """Whether a run that holds out an environment can be measured there."""
        return self.metric.measure is None or self._of(run, env) is not None

    def score(self, selected: Score, run: CollectedRun, env: int) -> Score | None:
        """Return what was selected with this metric in the place of the accuracy; None where that is not known.

        Args:
            run: of the selected draw, which holds out the environment alone.

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
        """Return the metric on the ``in`` split of the test environment, and its mean over what validates."""
        assert self.metric.measure is not None
        test = predictions.of(env, "in")
        validating = run.train_envs or [other for other in np.unique(predictions.env).tolist() if other != env]
        others = [predictions.of(other, "out") for other in validating]
        if not len(test.label):
            return None
        in_domain = [self.metric.measure(held_out) for held_out in others if len(held_out.label)]
        return self.metric.measure(test), fmean(in_domain) if in_domain else None
