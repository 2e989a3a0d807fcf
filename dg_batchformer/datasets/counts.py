"""Published versions of datasets: how many images each has by environment and class, and which one is at hand.

The counts lie in ``published_counts.csv``, where the class ``*`` stands for all classes of an environment; what is said
of the versions, with the source, in ``published_versions.csv``.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TypeAlias

from dg_batchformer.datasets.base import Dataset

Counts: TypeAlias = Mapping[str, Mapping[str, int]]
"""Numbers of images by environment and class."""

EVERY = "*"  # all classes together, where no source counts them one by one


@dataclass(frozen=True)
class Version:
    """A version of a dataset that results were published on.

    Args:
        name: dataset and number of images, which is how papers tell versions apart.
        source: who counted.
        counts: of every class, or of EVERY.
        fingerprint: of its files; None where nobody with the files computed it.

    """

    name: str
    about: str
    source: str
    counts: Counts
    fingerprint: str | None

    @property
    def total(self) -> int:
        """The number of images."""
        return total(self.counts)

    @property
    def classes(self) -> set[str]:
        """The names of classes; empty where they are counted together."""
        return {kind for classes in self.counts.values() for kind in classes} - {EVERY}

    def seen(self, counts: Counts) -> Counts:
        """Return the counts of what is at hand in the rows of this version: by class, or of EVERY."""
        if self.classes:
            return counts
        return {environment: {EVERY: sum(classes.values())} for environment, classes in counts.items()}

    def differences(self, counts: Counts) -> dict[tuple[str, str], tuple[int, int]]:
        """Return (images at hand, images published) by environment and class, where they differ."""
        here, published = _cells(self.seen(counts)), _cells(self.counts)
        pairs = {cell: (here.get(cell, 0), published.get(cell, 0)) for cell in {**published, **here}}
        return {cell: pair for cell, pair in pairs.items() if pair[0] != pair[1]}


@dataclass(frozen=True)
class Recognition:
    """The version that is at hand, and what tells: ``fingerprint``, or only ``counts``."""

    version: Version
    by: str

    def __str__(self) -> str:
        return self.version.name if self.by == "fingerprint" else f"{self.version.name} (by counts)"


def _cells(counts: Counts) -> dict[tuple[str, str], int]:
    return {(environment, kind): images for environment, of in counts.items() for kind, images in of.items()}


def total(counts: Counts) -> int:
    """Return the number of all images."""
    return sum(sum(classes.values()) for classes in counts.values())


@cache
def known_versions(dataset: str) -> Sequence[Version]:
    """Return the published versions of a dataset, in the order of the file; none for a dataset of your own."""
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for row in _rows("published_counts.csv"):
        counts.setdefault(row["version"], {}).setdefault(row["environment"], {})[row["class"]] = int(row["images"])
    return [
        Version(name := row["version"], row["about"], row["source"], counts[name], row["fingerprint"] or None)
        for row in _rows("published_versions.csv")
        if row["dataset"] == dataset
    ]


def nearest_version(dataset: str, counts: Counts) -> Version | None:
    """Return the published version whose counts differ least; None where none is published."""
    return min(
        known_versions(dataset),
        key=lambda version: sum(abs(here - there) for here, there in version.differences(counts).values()),
        default=None,
    )


def recognise(dataset: str, counts: Counts, fingerprint: str | None) -> Recognition | None:
    """Tell which published version images are: by their fingerprint, else by exact counts; None if no one."""
    versions = known_versions(dataset)
    for version in versions:
        if fingerprint is not None and version.fingerprint == fingerprint:
            return Recognition(version, "fingerprint")
    for version in versions:
        if not version.differences(counts):
            return Recognition(version, "counts")
    return None


def dataset_version(dataset: Dataset) -> str | None:
    """Return the name of the published version, for records; it says where only counts tell."""
    if not known_versions(dataset.facts.name):
        return None
    recognition = recognise(dataset.facts.name, dataset.counts(), dataset.fingerprint())
    return None if recognition is None else str(recognition)


def _rows(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(files(__package__).joinpath(name).read_text(encoding="utf-8").splitlines()))
