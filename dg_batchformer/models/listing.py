"""Format predictions as a text table, CSV or JSON."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tabulate import tabulate

from dg_batchformer.text.printable import in_csv, one_line

_TOP_OF_TEXT = 3


class Ranked(NamedTuple):
    """An image and its (class, probability) pairs, most probable first."""

    file: Path
    classes: list[tuple[str, float]]


def ranked(file: Path, classes: Sequence[str], probabilities: Sequence[float]) -> Ranked:
    """Sort the classes of a prediction by probability; ties keep the class order."""
    return Ranked(file, sorted(zip(classes, probabilities, strict=True), key=lambda pair: -pair[1]))


def as_text(predictions: Sequence[Ranked], classes: Sequence[str], top: int | None) -> str:
    """Return one line per image with its ``top`` most probable classes (default: 3)."""
    shown = min(top or _TOP_OF_TEXT, len(classes))
    rows = [[str(file), *(f"{name} {p:.1%}" for name, p in pairs[:shown])] for file, pairs in predictions]
    rows = [list(map(one_line, row)) for row in rows]
    headers = ["image", "prediction", *(f"{place}." for place in range(2, shown + 1))]
    return tabulate(rows, headers, disable_numparse=True) + "\n"


def as_csv(predictions: Sequence[Ranked], classes: Sequence[str], top: int | None) -> str:
    """Return one column per class, or with ``top``, the class and probability of the most probable ones."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if top is None:
        writer.writerow(["image", "prediction", *map(in_csv, classes)])
        for file, pairs in predictions:
            by_class = dict(pairs)
            writer.writerow([in_csv(str(file)), in_csv(pairs[0][0]), *(f"{by_class[name]:.6f}" for name in classes)])
        return text.getvalue()
    places = range(1, min(top, len(classes)) + 1)
    writer.writerow(["image", *(f"{name}_{place}" for place in places for name in ("class", "probability"))])
    for file, pairs in predictions:
        writer.writerow([in_csv(str(file)), *(cell for name, p in pairs[:top] for cell in (in_csv(name), f"{p:.6f}"))])
    return text.getvalue()


def as_json(predictions: Sequence[Ranked], classes: Sequence[str], top: int | None) -> str:
    """Return a list of objects: image, prediction, and probabilities by class, most probable first."""
    listed = [
        {"image": str(file), "prediction": pairs[0][0], "probabilities": {name: round(p, 6) for name, p in pairs[:top]}}
        for file, pairs in predictions
    ]
    return json.dumps(listed, indent=1) + "\n"


FORMATS: dict[str, Callable[[Sequence[Ranked], Sequence[str], int | None], str]] = {
    "text": as_text,
    "csv": as_csv,
    "json": as_json,
}
