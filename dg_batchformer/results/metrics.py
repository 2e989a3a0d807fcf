"""Metrics for tables: recorded accuracies, or metrics computed from predictions."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from dg_batchformer.results.collection import CollectedRun
from dg_batchformer.results.evaluations import Evaluations
from dg_batchformer.results.predictions import Predictions, read_predictions
from dg_batchformer.results.selection import Score
from dg_batchformer.storage.folders import RunFolder

_BINS = 15


@dataclass(frozen=True)
class Metric:
    """A metric with values in [0, 1].

    Args:
        name: for the command line. title: for tables. about: definition in one sentence.
        measure: computes it from the predictions on a split, if it is not recorded; None if it is only recorded.
        keys: of records, after ``env0_in_``; with two keys, the metric is the difference of their values.
        lower_is_better: whether lower values are better.

    """

    name: str
    title: str
    about: str = ""
    measure: Callable[[Predictions], float] | None = None
    keys: tuple[str, ...] = ()
    lower_is_better: bool = False

    @property
    def needs(self) -> str:
        """The data that a run needs to have the metric."""
        if self.measure is None:
            return "accuracies by class, which runs with an imbalance record"
        return "a readable predictions.npz; train and sweep write it with --predictions"

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


def _shots(name: str) -> Metric:
    about = f"the mean accuracy over {name}-shot classes, by their number of training images"
    return Metric(name, f"{name}-shot test accuracy", about, keys=(f"{name}_acc",))


ACCURACY = Metric("accuracy", "test accuracy", keys=("acc",))
_METRICS = (
    ACCURACY,
    Metric(
        "balanced",
        "balanced test accuracy",
        "the mean accuracy over classes; classes without images do not count",
        balanced_accuracy,
        ("balanced_acc",),
    ),
    Metric(
        "worst-class",
        "worst-class test accuracy",
        "the lowest accuracy of a class; classes without images do not count",
        worst_class_accuracy,
        ("worst_class_acc",),
    ),
    _shots("many"),
    _shots("medium"),
    _shots("few"),
    Metric(
        "few-many",
        "few-shot minus many-shot test accuracy",
        "the mean accuracy over few-shot classes minus that over many-shot classes",
        keys=("few_acc", "many_acc"),
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
        if self.metric is ACCURACY or not len(run.evaluations):
            return self.metric is ACCURACY
        return self._of(run, env, int(run.evaluations.steps[-1])) is not None

    def score(self, selected: Score, run: CollectedRun, env: int) -> Score | None:
        """Return the selected score with this metric instead of the accuracy; None if it is not available.

        Args:
            selected: score of the selected step.
            run: of the selected draw, with ``env`` as its only test environment.
            env: the test environment.

        """
        if self.metric is ACCURACY:
            return selected
        measured = self._of(run, env, selected.step)
        return None if measured is None else replace(selected, test=measured[0], in_domain=measured[1])

    def _of(self, run: CollectedRun, env: int, step: int) -> tuple[float, float | None] | None:
        """Return the metric on the ``in`` split of the test environment, and its mean over validation splits.

        Read from the record of a step if the metric is recorded, else computed from predictions of the final model.
        """
        recorded = self._recorded(run, env, step)
        if recorded is not None or self.metric.measure is None:
            return recorded
        key = str(run.path), env
        if key not in self._known:
            predictions = read_predictions(RunFolder(run.path).predictions_file)
            self._known[key] = None if predictions is None else self._measure(predictions, run, env)
        return self._known[key]

    def _recorded(self, run: CollectedRun, env: int, step: int) -> tuple[float, float | None] | None:
        at_step = run.evaluations.at(run.evaluations.steps == step)
        test = self._value(at_step, f"env{env}_in_")
        if test is None:
            return None
        in_domain = [self._value(at_step, f"env{other}_out_") for other in run.validating(env)]
        known = [value for value in in_domain if value is not None]
        return test, fmean(known) if known else None

    def _value(self, evaluations: Evaluations, prefix: str) -> float | None:
        """Return the value in the last evaluation; None if a key is not recorded."""
        keys = [f"{prefix}{key}" for key in self.metric.keys]
        if not keys or not len(evaluations) or not all(evaluations.has(key)[-1] for key in keys):
            return None
        first, *second = [float(evaluations.column(key)[-1]) for key in keys]
        return first - sum(second)

    def _measure(self, predictions: Predictions, run: CollectedRun, env: int) -> tuple[float, float | None] | None:
        assert self.metric.measure is not None
        test = predictions.of(env, "in")
        validating = run.train_envs or [other for other in np.unique(predictions.env).tolist() if other != env]
        others = [predictions.of(other, "out") for other in validating]
        if not len(test.label):
            return None
        in_domain = [self.metric.measure(held_out) for held_out in others if len(held_out.label)]
        return self.metric.measure(test), fmean(in_domain) if in_domain else None
