"""Compare the results of a sweep with the published averages that it expects."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import sqrt

from dg_batchformer.errors import MALFORMED, InputError
from dg_batchformer.spec.expected import Expected, parse_expected
from dg_batchformer.storage.folders import SweepFolder
from dg_batchformer.tables.table import Cell, Section

ALLOWANCE = 0.5
"""Percentage points that are always allowed: for rounding, other hardware and other library versions."""


class Fulfilment(StrEnum):
    """Outcome of a comparison."""

    INSIDE = "inside"
    OUTSIDE = "outside"
    NOT_RUN = "not run"
    TOO_FEW = "1 trial: give a tolerance"


@dataclass(frozen=True)
class Reproduction:
    """An expected average, the result, and the tolerance.

    Args:
        expected: in percent. found: empty if no trial has all environments.
        tolerance: in percentage points; None if a single trial does not allow an estimate.

    """

    dataset: str
    label: str
    expected: float
    found: Cell
    tolerance: float | None

    @property
    def difference(self) -> float | None:
        """Found minus expected, in percentage points."""
        return None if self.found.mean is None else self.found.mean - self.expected

    @property
    def verdict(self) -> Fulfilment:
        """Whether the difference is within the tolerance."""
        if self.difference is None:
            return Fulfilment.NOT_RUN
        if self.tolerance is None:
            return Fulfilment.TOO_FEW
        return Fulfilment.INSIDE if abs(self.difference) <= self.tolerance else Fulfilment.OUTSIDE


def read_expected(folder: SweepFolder) -> Expected:
    """Return the expected results of a sweep; raise InputError if it has none."""
    content = folder.read()
    try:
        declared = content["declared"]
        given = declared.get("expected")
        datasets, labels = list(declared["datasets"]), [row["label"] for row in declared["algorithms"]]
    except MALFORMED:
        raise InputError(f"{folder.sweep_file} lacks the content of the sweep file; start the sweep again") from None
    if not given:
        raise InputError(
            f"{folder.path} has no expected results; add 'expected:' to its sweep file (see sweeps/README.md) and "
            "start the sweep again, which does not repeat finished runs"
        )

    def error(key: tuple[str, ...], sentence: str) -> InputError:
        return InputError(f"{folder.sweep_file}: {': '.join(('expected', *key))}: {sentence}")

    return parse_expected(given, datasets, labels, error)


def compare(section: Section, expected: Expected) -> list[Reproduction]:
    """Compare expected averages with those of a section, which must have the expected selection method."""
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
    """Return the default tolerance in percentage points; None for fewer than two trials.

    It is two standard errors of the difference, assuming that the published mean varies as ours, plus ALLOWANCE. It
    uses the sample standard error, as the table's (DomainBed's) is too small for few trials.
    """
    if cell.error is None or cell.n < 2:
        return None
    standard_error = cell.error * sqrt(cell.n / (cell.n - 1))
    return 2 * sqrt(2) * standard_error + ALLOWANCE


def is_reproduced(comparisons: Sequence[Reproduction]) -> bool:
    """Return whether no difference is outside its tolerance."""
    return all(comparison.verdict is not Fulfilment.OUTSIDE for comparison in comparisons)
