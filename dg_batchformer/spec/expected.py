"""Expected results of a sweep: published averages that it should reproduce."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from dg_batchformer.catalog.datasets import SELECTION_NAMES
from dg_batchformer.errors import InputError, unknown
from dg_batchformer.text.spelling import one_form

_SETTINGS = ("source", "selection", "tolerance")
Error = Callable[[tuple[str, ...], str], InputError]  # (key, message) -> error


@dataclass(frozen=True)
class Expected:
    """Published averages over held-out environments, and the tolerance of the comparison.

    Args:
        source: publication. selection: its model selection method.
        tolerance: in percentage points; None derives it from the variation of the sweep's trials.
        averages: in percent, by dataset and row label.

    """

    source: str
    selection: str
    tolerance: float | None
    averages: Mapping[str, Mapping[str, float]]


def parse_expected(content: Any, datasets: Collection[str], labels: Collection[str], error: Error) -> Expected:
    """Parse the mapping ``expected`` of a sweep file or manifest.

    Args:
        content: the mapping.
        datasets, labels: of the sweep; others are errors.
        error: builds the InputError to raise, with the file and the line of a key.

    """
    if not isinstance(content, Mapping):
        raise error((), f"expected must have a source, and percentages by dataset and label; got {content!r}")
    source = content.get("source")
    if not isinstance(source, str) or not source:
        raise error((), "expected needs a source: where the numbers are published")
    selection = content.get("selection", SELECTION_NAMES[0])
    if selection not in SELECTION_NAMES:
        raise error(("selection",), str(unknown("selection", selection, SELECTION_NAMES)))
    tolerance = content.get("tolerance")
    if tolerance is not None and (not _is_number(tolerance) or not 0 < tolerance <= 100):
        raise error(("tolerance",), f"tolerance must be in points, above 0 and at most 100; got {tolerance!r}")
    named = {name: averages for name, averages in content.items() if name not in _SETTINGS}
    spelled = {one_form(dataset): dataset for dataset in datasets}
    for dataset in named:
        if one_form(dataset) not in spelled:
            raise error((dataset,), str(unknown("dataset of this sweep", dataset, [*datasets, *_SETTINGS])))
    if not named:
        raise error(
            (), f"expected names no dataset; add percentages by label, as in '{next(iter(datasets))}: {{ERM: 85.5}}'"
        )
    averages = {
        spelled[one_form(dataset)]: _averages(dataset, given, labels, error) for dataset, given in named.items()
    }
    return Expected(source, selection, None if tolerance is None else float(tolerance), averages)


def _averages(dataset: str, given: Any, labels: Collection[str], error: Error) -> dict[str, float]:
    if not isinstance(given, Mapping) or not given:
        raise error((dataset,), f"{dataset} must have percentages by label, as in {{ERM: 85.5}}; got {given!r}")
    spelled = {one_form(label): label for label in labels}
    for label, value in given.items():
        if one_form(label) not in spelled:
            raise error((dataset, label), str(unknown("row of this sweep", label, labels)))
        if not _is_number(value) or not 0 <= value <= 100:
            raise error((dataset, label), f"{label} must be a percentage between 0 and 100, got {value!r}")
    return {spelled[one_form(label)]: float(value) for label, value in given.items()}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
