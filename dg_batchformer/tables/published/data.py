"""The data file of published results: 2,780 accuracies as printed, each with its source."""

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import NamedTuple

AVERAGE = "Average"  # the environment of a mean over environments, and over datasets
KINDS = ("ran", "quoted", "secondary", "log")  # the most trustworthy first


class Setting(NamedTuple):
    """What must be equal for accuracies to be compared: the network and where its weights come from."""

    backbone: str
    weights: str

    def __str__(self) -> str:
        weights = {"": "weights not stated", "none": "from scratch"}.get(self.weights, self.weights)
        return f"{self.backbone} ({weights})"


@dataclass(frozen=True)
class Publication:
    """Where numbers were read.

    Args:
        name: as labels say it. key: of the entry in ``references.bib``. citation: for people. arxiv: '' for none.
        where: the file, figure or table.

    """

    name: str
    key: str
    citation: str
    arxiv: str
    where: str

    @property
    def sentence(self) -> str:
        """The citation and the place."""
        arxiv = f", arXiv:{self.arxiv}" if self.arxiv else ""
        return f"{self.name}: {self.citation}{arxiv}; {self.where}"


@dataclass(frozen=True)
class Accuracy:
    """A number as printed, in percent; the error is None where none was printed."""

    mean: float
    error: float | None
    notes: str


@dataclass(frozen=True)
class Entry:
    """What one source says of one algorithm in one setting.

    Args:
        selection: a name of ``selection.METHODS``, or ``other``. said: the same in the source's words.
        kind: one of KINDS.
        accuracies: by (dataset, environment); a mean over datasets is under their names, joined by '+'.

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
        """The row's name: the algorithm, and who says so."""
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
    """Read the data file: an entry for every source, algorithm and setting, in its order."""
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
    """Return the text of a file beside this one, also where the package is installed."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
