"""What a dataset holds, for people: its environments and classes as a table of counts, and how uneven they are."""

from tabulate import tabulate

from dg_batchformer.datasets.base import Dataset
from dg_batchformer.datasets.counts import recognise, total

_ROWS = 100  # of the table; more classes are summed up


def info_text(dataset: Dataset) -> str:
    """Return the description of a dataset."""
    facts, counts = dataset.facts, dataset.counts()
    recognition = recognise(facts.name, counts, None)
    what = "images" if len(dataset.input_shape) == 3 else f"vectors of {dataset.input_shape[0]}, no images"
    rows = [
        ["what", f"{total(counts):,} {what}, {len(dataset)} environments, {dataset.num_classes} classes"],
        ["fed as", " x ".join(map(str, dataset.input_shape))],
    ]
    if facts.folder:
        known = f"{recognition}: {recognition.version.about}" if recognition is not None else "none that is published"
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
    return table if len(kinds) <= _ROWS else f"{table}\n{len(kinds)} classes are not listed one by one"


def _balance(counts: dict[str, dict[str, int]]) -> str:
    """Return how uneven the classes are in each environment, by the ratio of the largest to the smallest."""
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
