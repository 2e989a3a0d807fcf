"""Published results: 2,780 accuracies as printed, each with its source."""

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import NamedTuple

AVERAGE = "Average"  # the environment of a mean over environments, and over datasets
KINDS = ("ran", "quoted", "secondary", "log")  # most trustworthy first


class Setting(NamedTuple):
    """Backbone and pretrained weights, which must be equal for a fair comparison."""

    backbone: str
    weights: str

    def __str__(self) -> str:
        weights = {"": "weights not stated", "none": "from scratch"}.get(self.weights, self.weights)
        return f"{self.backbone} ({weights})"


@dataclass(frozen=True)
class Publication:
    """The source of published numbers.

    Args:
        name: for labels. key: of the entry in ``references.bib``. citation: readable. arxiv: id, '' if there is none.
        where: file, figure or table.

    """

    name: str
    key: str
    citation: str
    arxiv: str
    where: str

    @property
    def sentence(self) -> str:
        """Citation and location."""
        arxiv = f", arXiv:{self.arxiv}" if self.arxiv else ""
        return f"{self.name}: {self.citation}{arxiv}; {self.where}"


@dataclass(frozen=True)
class Accuracy:
    """An accuracy as printed, in percent; the error is None if none was printed."""

    mean: float
    error: float | None
    notes: str


@dataclass(frozen=True)
class Entry:
    """The results of one source for one algorithm in one setting.

    Args:
        selection: a name in ``selection.METHODS``, or ``other``. said: the selection in the source's words.
        kind: one of KINDS.
        accuracies: by (dataset, environment); the key of a mean over datasets is their names, joined by '+'.

    """

    source: Publication
    algorithm: str
    variant: str
    setting: Setting
    selection: str
    said: str
    kind: str
    accuracies: Mapping[tuple[str, str], Accuracy]

    @property
    def label(self) -> str:
        """The row label: the algorithm and the source."""
        algorithm = f"{self.algorithm}, {self.variant}" if self.variant else self.algorithm
        said = {
            "ran": self.source.name,
            "quoted": f"quoted by {self.source.name}",
            "secondary": f"{self.source.name}, second-hand",
            "log": f"{self.source.name}, one run",
        }
        return f"{algorithm} ({said[self.kind]})"


@cache
def load_published() -> Sequence[Entry]:
    """Read the data file: one entry per source, algorithm and setting, in file order."""
    sources = {row.pop("source"): Publication(**row) for row in _rows("sources.csv")}
    found: dict[tuple[str, ...], dict[tuple[str, str], Accuracy]] = defaultdict(dict)
    for row in _rows("results.csv"):
        entry = tuple(row[name] for name in _ENTRY)
        error = float(row["error"]) if row["error"] else None
        found[entry][row["dataset"], row["environment"]] = Accuracy(float(row["accuracy"]), error, row["notes"])
    return [
        Entry(sources[source], algorithm, variant, Setting(backbone, weights), selection, said, kind, accuracies)
        for (source, algorithm, variant, backbone, weights, selection, said, kind), accuracies in found.items()
    ]


_ENTRY = ("source", "algorithm", "variant", "backbone", "weights", "selection", "said", "kind")


def _rows(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(read_text(name).splitlines()))


def read_text(name: str) -> str:
    """Return the text of a data file of this package."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
