"""Render the comparison with expected results as text."""

from collections import Counter
from collections.abc import Sequence

from tabulate import tabulate

from dg_batchformer.results.selection import METHODS
from dg_batchformer.spec.expected import Expected
from dg_batchformer.tables.expectation import ALLOWANCE, Reproduction
from dg_batchformer.tables.render.wording import number, sentence


def expectation(expected: Expected, comparisons: Sequence[Reproduction], notes: Sequence[str] = ()) -> str:
    """Render a table of all comparisons, with the tolerance and the number of verdicts.

    Args:
        expected: of the sweep.
        comparisons: one per expected average.
        notes: on datasets without runs for the selection method.

    """
    headers = ["dataset", "row", "expected", "found", "difference", "tolerance", "verdict"]
    alignment = ("left", "left", "right", "right", "right", "right", "left")
    rows = [_row(comparison) for comparison in comparisons]
    counts = Counter(comparison.verdict for comparison in comparisons)
    lines = [
        f"Averages over environments (%), model selection: {METHODS[expected.selection].title}",
        f"Expected: {expected.source}",
        "",
        tabulate(rows, headers=headers, disable_numparse=True, colalign=alignment),
        "",
        *notes,
        _about_tolerance(expected.tolerance),
        f"{len(comparisons)} expected: {', '.join(f'{count} {verdict}' for verdict, count in counts.items())}",
    ]
    return "\n".join(lines) + "\n"


def _row(comparison: Reproduction) -> list[str]:
    cell, difference = comparison.found, comparison.difference
    found = "" if cell.mean is None else number(cell, " ± ", trials=cell.n + 1)  # always with its n
    tolerated = difference is not None and comparison.tolerance is not None
    return [
        comparison.dataset,
        comparison.label,
        f"{comparison.expected:.1f}",
        found,
        "" if difference is None else f"{difference:+.1f}",
        f"{comparison.tolerance:.1f}" if tolerated else "",
        comparison.verdict,
    ]


def _about_tolerance(tolerance: float | None) -> str:
    if tolerance is not None:
        return sentence(f"tolerance: {tolerance:g} points, as given in the sweep file")
    return sentence(
        "tolerance: two standard errors of the difference, assuming that the published mean varies as ours, "
        f"plus {ALLOWANCE:g} points for rounding, hardware and versions; 'tolerance' in the sweep file overrides it"
    )
