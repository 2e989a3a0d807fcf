"""A reproduction beside what it set out to reproduce: expected and found averages, inside or outside tolerance."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import sqrt

from dg_batchformer.errors import MALFORMED, InputError
from dg_batchformer.spec.expected import Expected, parse_expected
from dg_batchformer.storage.folders import SweepFolder
from dg_batchformer.tables.table import Cell, Section

ALLOWANCE = 0.5
"""Points that are always allowed: for rounding, other hardware and other versions of libraries."""


class Fulfilment(StrEnum):
    """What a difference means."""

    INSIDE = "inside"
    OUTSIDE = "outside"
    NOT_RUN = "not run"
    TOO_FEW = "1 trial: give a tolerance"


@dataclass(frozen=True)
class Reproduction:
    """One expected average, what was found, and how far apart they may be.

    Args:
        expected: in percent. found: empty where no trial has all environments.
        tolerance: in points; None where one trial alone leaves it open.

    """

    dataset: str
    label: str
    expected: float
    found: Cell
    tolerance: float | None

    @property
    def difference(self) -> float | None:
        """Found less expected, in points."""
        return None if self.found.mean is None else self.found.mean - self.expected

    @property
    def verdict(self) -> Fulfilment:
        """Whether the difference is tolerated."""
        if self.difference is None:
            return Fulfilment.NOT_RUN
        if self.tolerance is None:
            return Fulfilment.TOO_FEW
        return Fulfilment.INSIDE if abs(self.difference) <= self.tolerance else Fulfilment.OUTSIDE


def read_expected(folder: SweepFolder) -> Expected:
    """Return what a sweep expects; raise InputError where it expects nothing."""
    content = folder.read()
    try:
        declared = content["declared"]
        given = declared.get("expected")
        datasets, labels = list(declared["datasets"]), [row["label"] for row in declared["algorithms"]]
    except MALFORMED:
        raise InputError(f"{folder.sweep_file} does not hold what the sweep declared; start the sweep again") from None
    if not given:
        raise InputError(
            f"{folder.path} expects nothing; give its sweep file 'expected:' (sweeps/README.md has the grammar) "
            "and start the sweep again, which trains nothing twice"
        )

    def error(key: tuple[str, ...], sentence: str) -> InputError:
        return InputError(f"{folder.sweep_file}: {': '.join(('expected', *key))}: {sentence}")

    return parse_expected(given, datasets, labels, error)


def compare(section: Section, expected: Expected) -> list[Reproduction]:
    """Set expected averages beside those of a section, which is of the expected selection."""
    tables = {table.title: table for table in section.tables}
    found = []
    for dataset, averages in expected.averages.items():
        table = tables.get(dataset)
        for label, value in averages.items():
            cell = table.rows[label][table.average] if table else Cell()
            tolerance = expected.tolerance if expected.tolerance is not None else default_tolerance(cell)
            found.append(Reproduction(dataset, label, value, cell, tolerance))
    return found


def default_tolerance(cell: Cell) -> float | None:
    """Return how far a mean over trials may lie from a published one, in points; None for fewer than two trials.

    Two standard errors of the difference, where the published mean is taken to scatter as ours does, and the
    allowance. The standard error is that of a sample: the table's, which is DomainBed's, is too small for few trials.
    """
    if cell.error is None or cell.n < 2:
        return None
    standard_error = cell.error * sqrt(cell.n / (cell.n - 1))
    return 2 * sqrt(2) * standard_error + ALLOWANCE


def is_reproduced(comparisons: Sequence[Reproduction]) -> bool:
    """Whether nothing is outside its tolerance."""
    return all(comparison.verdict is not Fulfilment.OUTSIDE for comparison in comparisons)
