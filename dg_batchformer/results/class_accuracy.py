"""Accuracy by class: keys in the records of runs with an imbalance, and means over groups of classes.

``env0_in_class3_acc`` is the accuracy on class 3 on a split; ``env0_in_few_acc`` the mean over classes with few
training images, and so ``many`` and ``medium``; ``balanced`` the mean over all classes, ``worst_class`` the lowest of
all. Classes without an image in a split do not count, and a group without a class is absent.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean


def recorded(
    env: int, split: str, by_class: Sequence[float | None], shots: Mapping[str, Sequence[int]]
) -> dict[str, float]:
    """Return the accuracies by class of a split, by key of the record.

    Args:
        by_class: accuracy of every class, a fraction; None for classes without an image.
        shots: the classes with ``many``, ``medium`` and ``few`` training images.

    """
    there = {label: value for label, value in enumerate(by_class) if value is not None}
    groups = {name: [there[label] for label in labels if label in there] for name, labels in shots.items()}
    pooled = {name: fmean(values) for name, values in groups.items() if values}
    pooled |= {"balanced": fmean(there.values()), "worst_class": min(there.values())}
    each = {f"class{label}": value for label, value in there.items()}
    return {f"env{env}_{split}_{name}_acc": value for name, value in {**pooled, **each}.items()}
