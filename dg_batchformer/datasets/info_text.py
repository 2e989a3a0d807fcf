"""Describe a dataset as text: a table of counts by environment and class, and class imbalance."""

from collections.abc import Mapping, Sequence

from tabulate import tabulate

from dg_batchformer.datasets.base import Dataset
from dg_batchformer.datasets.counts import recognise, total

_ROWS = 100  # with more classes, the table has only totals
_BAR = 12  # characters of the longest bar


def info_text(dataset: Dataset) -> str:
    """Return the text of ``data info``."""
    facts, counts = dataset.facts, dataset.counts()
    recognition = recognise(facts.name, counts, None)
    what = "images" if len(dataset.input_shape) == 3 else f"vectors of {dataset.input_shape[0]}, not images"
    rows = [
        ["what", f"{total(counts):,} {what}, {len(dataset)} environments, {dataset.num_classes} classes"],
        ["fed as", " x ".join(map(str, dataset.input_shape))],
    ]
    if facts.folder:
        known = f"{recognition}: {recognition.version.about}" if recognition is not None else "not a published one"
        rows.append(["version", known])
    return "\n\n".join(
        [f"{facts.name}: {facts.about}\n{tabulate(rows, tablefmt='plain')}", _counts(counts), _balance(counts)]
    )


def thinned_text(
    counts: Mapping[str, Sequence[int]], classes: Sequence[str], shots: Mapping[str, Sequence[int]]
) -> str:
    """Return the training images of every class and environment with bars, the most frequent class first.

    Args:
        counts: by environment, then of every class.
        shots: the classes that have ``many``, ``medium`` and ``few`` images.

    """
    group = {label: name for name, labels in shots.items() for label in labels}
    most = max(max(images) for images in counts.values())
    order = sorted(range(len(classes)), key=lambda label: -sum(images[label] for images in counts.values()))
    rows = [
        [classes[label], group.get(label, "none"), *(_bar(images[label], most) for images in counts.values())]
        for label in order
    ]
    rows.append(["all", "", *(f"{sum(images):,}" for images in counts.values())])
    return tabulate(rows, headers=["class", "has", *counts], disable_numparse=True)


def _bar(images: int, most: int) -> str:
    length = -(-images * _BAR // most)  # rounded up, so that one image shows
    return f"{images:>6,} {'▇' * length}"


def _counts(counts: dict[str, dict[str, int]]) -> str:
    kinds = list(next(iter(counts.values())))
    rows = [(kind, [classes[kind] for classes in counts.values()]) for kind in kinds if len(kinds) <= _ROWS]
    rows.append(("all", [sum(classes.values()) for classes in counts.values()]))
    table = tabulate(
        [[name, *(f"{images:,}" for images in [*cells, sum(cells)])] for name, cells in rows],
        headers=["class", *counts, "all"],
        disable_numparse=True,
        colalign=["left", *["right"] * (len(counts) + 1)],
    )
    return table if len(kinds) <= _ROWS else f"{table}\n({len(kinds)} classes, not listed individually)"


def _balance(counts: dict[str, dict[str, int]]) -> str:
    """Return the class imbalance of each environment: the ratio of the largest to the smallest class."""
    cells = {images for classes in counts.values() for images in classes.values()}
    if len(cells) == 1:
        return f"balanced: {cells.pop():,} of every class in every environment"
    rows = []
    for environment, classes in counts.items():
        least, most = min(classes, key=classes.__getitem__), max(classes, key=classes.__getitem__)
        ratio = f"{classes[most] / classes[least]:.1f}" if classes[least] else "a class is missing"
        rows.append([environment, f"{most} {classes[most]:,}", f"{least} {classes[least]:,}", ratio])
    headers = ["environment", "largest class", "smallest class", "imbalance"]
    return tabulate(rows, headers=headers, disable_numparse=True)
