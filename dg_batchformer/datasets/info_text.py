"""Describe a dataset as text: a table of counts by environment and class, and class imbalance."""

from tabulate import tabulate

from dg_batchformer.datasets.base import Dataset
from dg_batchformer.datasets.counts import recognise, total

_ROWS = 100  # with more classes, the table has only totals


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
