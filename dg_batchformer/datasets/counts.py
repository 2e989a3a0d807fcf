"""Published versions of datasets: their image counts by environment and class, and recognition of local data.

The counts are in ``published_counts.csv``, where the class ``*`` stands for all classes of an environment. Descriptions
and sources of the versions are in ``published_versions.csv``.
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

EVERY = "*"  # all classes together, if no source has counts by class


@dataclass(frozen=True)
class Version:
    """A version of a dataset on which results were published.

    Args:
        name: dataset and number of images, by which papers distinguish versions.
        source: where the counts come from.
        counts: by class, or of EVERY.
        fingerprint: of its files; None if it is unknown.

    """

    name: str
    about: str
    source: str
    counts: Counts
    fingerprint: str | None

    @property
    def total(self) -> int:
        """Number of images."""
        return total(self.counts)

    @property
    def classes(self) -> set[str]:
        """Names of classes; empty if they are counted together."""
        return {kind for classes in self.counts.values() for kind in classes} - {EVERY}

    def seen(self, counts: Counts) -> Counts:
        """Convert local counts to the form of this version: by class, or of EVERY."""
        if self.classes:
            return counts
        return {environment: {EVERY: sum(classes.values())} for environment, classes in counts.items()}

    def differences(self, counts: Counts) -> dict[tuple[str, str], tuple[int, int]]:
        """Return (local, published) counts by environment and class, where they differ."""
        here, published = _cells(self.seen(counts)), _cells(self.counts)
        pairs = {cell: (here.get(cell, 0), published.get(cell, 0)) for cell in {**published, **here}}
        return {cell: pair for cell, pair in pairs.items() if pair[0] != pair[1]}


@dataclass(frozen=True)
class Recognition:
    """A recognized version, and how it was recognized: by ``fingerprint``, or only by ``counts``."""

    version: Version
    by: str

    def __str__(self) -> str:
        return self.version.name if self.by == "fingerprint" else f"{self.version.name} (by counts)"


def _cells(counts: Counts) -> dict[tuple[str, str], int]:
    return {(environment, kind): images for environment, of in counts.items() for kind, images in of.items()}


def total(counts: Counts) -> int:
    """Return the total number of images."""
    return sum(sum(classes.values()) for classes in counts.values())


@cache
def known_versions(dataset: str) -> Sequence[Version]:
    """Return the published versions of a dataset, in the order of the file; [] for a custom dataset."""
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for row in _rows("published_counts.csv"):
        counts.setdefault(row["version"], {}).setdefault(row["environment"], {})[row["class"]] = int(row["images"])
    return [
        Version(name := row["version"], row["about"], row["source"], counts[name], row["fingerprint"] or None)
        for row in _rows("published_versions.csv")
        if row["dataset"] == dataset
    ]


def nearest_version(dataset: str, counts: Counts) -> Version | None:
    """Return the published version with the smallest difference in counts; None if there is none."""
    return min(
        known_versions(dataset),
        key=lambda version: sum(abs(here - there) for here, there in version.differences(counts).values()),
        default=None,
    )


def recognise(dataset: str, counts: Counts, fingerprint: str | None) -> Recognition | None:
    """Recognize the published version of local data, by its fingerprint or else by exact counts; None if unknown."""
    versions = known_versions(dataset)
    for version in versions:
        if fingerprint is not None and version.fingerprint == fingerprint:
            return Recognition(version, "fingerprint")
    for version in versions:
        if not version.differences(counts):
            return Recognition(version, "counts")
    return None


def dataset_version(dataset: Dataset) -> str | None:
    """Return the name of the published version for records, marked if only the counts match; None if unknown."""
    if not known_versions(dataset.facts.name):
        return None
    recognition = recognise(dataset.facts.name, dataset.counts(), dataset.fingerprint())
    return None if recognition is None else str(recognition)


def _rows(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(files(__package__).joinpath(name).read_text(encoding="utf-8").splitlines()))
