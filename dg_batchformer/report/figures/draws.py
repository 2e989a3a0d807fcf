"""Validation accuracy over the values of randomly drawn hyper-parameters."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from math import floor, isfinite, log10
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from dg_batchformer.report.choices import Choices
from dg_batchformer.report.figures.svg import ROWS, Plot, left_out, panels_in_lines, render
from dg_batchformer.report.looks import Looks
from dg_batchformer.results.collection import CollectedRun, Collection
from dg_batchformer.results.selection import Method

ABOUT = (
    "Each dot is the validation accuracy of one draw of a row in one trial, averaged over test environments. Draw 0 "
    "is the defaults."
)
LACKING = "No hyper-parameters were drawn: every row has one draw."
_COLUMNS = 4
_MOST_PANELS = 16
_MOST_ROWS = 8
_MOST_DOTS = 240  # per panel
_FEW = 5  # up to so many whole numbers are drawn as categories
# Ratios of the largest to the smallest value: from the first on, an axis is logarithmic; from the second on, with ticks
# at powers of ten only.
_SPREAD, _LONG_SPREAD = 20, 300

Points = dict[str, list[tuple[Any, float]]]  # by row: (value, validation accuracy in percent)


def draw_plots(choices: Choices, looks: Looks) -> Iterator[Plot]:
    """Yield the figure of each dataset on which rows have several draws."""
    collection, method = choices.collection, choices.method
    for dataset in choices.datasets:
        several = {run.label for run in collection.runs if run.benchmark == dataset and run.hparams_seed > 0}
        labels = choices.best_labels(dataset, _MOST_ROWS, among=several)
        runs = [run for run in collection.runs if run.benchmark == dataset and run.label in labels]
        panels = _panels(runs, collection, method)
        if not panels:
            continue
        shown = dict(list(panels.items())[:_MOST_PANELS])
        most = max(sum(map(len, points.values())) for points in shown.values())
        about = f"{dataset}: validation accuracy against the value of {len(shown)} drawn hyper-parameters"
        lines = -(-len(shown) // _COLUMNS)
        svg = render(about, 0.7 + 1.35 * lines + 0.72 * (lines - 1), partial(_draw, panels=shown, looks=looks))
        notes = left_out(len(labels), len(several), "rows with several draws are shown, those with the best averages")
        notes += left_out(len(shown), len(panels), "drawn hyper-parameters are shown, those that most rows have")
        if most > _MOST_DOTS:
            notes.append(f"At most {_MOST_DOTS} draws are shown in a panel.")
        yield Plot(dataset, svg, notes, labels)


def _panels(runs: Sequence[CollectedRun], collection: Collection, method: Method) -> dict[str, Points]:
    """Return the points by drawn hyper-parameter, those that most rows have first."""
    panels: dict[str, Points] = defaultdict(lambda: defaultdict(list))
    for (label, hparams), accuracy in _validated(runs, collection, method):
        for name, value in hparams.items():
            if isinstance(value, str) or (isinstance(value, int | float) and isfinite(value)):
                panels[name][label].append((value, 100 * accuracy))
    drawn = {
        name: points
        for name, points in panels.items()
        if any(len({value for value, _ in of_row}) > 1 for of_row in points.values())
    }
    return dict(sorted(drawn.items(), key=lambda item: -len(item[1])))


def _validated(
    runs: Sequence[CollectedRun], collection: Collection, method: Method
) -> Iterator[tuple[tuple[str, Mapping[str, Any]], float]]:
    """Yield ((row, hparams), validation accuracy averaged over test environments) of every draw."""
    draws: dict[tuple[str, int, int], list[CollectedRun]] = defaultdict(list)
    for run in runs:
        draws[run.label, run.trial_seed, run.hparams_seed].append(run)
    for (label, _, _), of_draw in draws.items():
        names = collection.environments[of_draw[0].benchmark]
        scores = [method.select(of_draw, env, len(names)) for env in range(len(names))]
        found = [score.validation for score in scores if score is not None]
        hparams = next((run.constant["hparams"] for run in of_draw if _has_hparams(run)), None)
        if found and hparams is not None:
            yield (label, hparams), fmean(found)


def _has_hparams(run: CollectedRun) -> bool:
    return isinstance(run.constant.get("hparams"), dict)


def _draw(figure: Figure, panels: dict[str, Points], looks: Looks) -> None:
    for first, line in panels_in_lines(figure, list(panels), _COLUMNS, left=0.5, between=(0.3, 0.72), sharey=True):
        first.set_ylabel("validation (%)")
        for axes, name in line:
            axes.set_title(name)
            _draw_panel(axes, panels[name], looks)


def _draw_panel(axes: Axes, points: Points, looks: Looks) -> None:
    values = [value for of_row in points.values() for value, _ in of_row]
    stride = -(-len(values) // _MOST_DOTS)
    places = _few_places(axes, values, list(points)) or _many_places(axes, values)
    for label, of_row in points.items():
        x, y = zip(*[(places(label, value), accuracy) for value, accuracy in of_row[::stride]], strict=True)
        axes.plot(x, y, looks[label].marker, color=ROWS[looks[label].colour], alpha=0.65, markeredgewidth=0)


Places = Callable[[str, Any], float]  # (row, value) -> position on the axis


def _few_places(axes: Axes, values: Sequence[Any], labels: Sequence[str]) -> Places | None:
    """Set up a categorical axis with rows side by side at each value; None for fractions or many values."""
    kinds = {type(value) for value in values}
    if kinds <= {int, float} and (float in kinds or len(set(values)) > _FEW):
        return None
    names = [str(value) for value in sorted(set(values), key=None if kinds == {int} else str)]
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.grid(axis="x", visible=False)
    return lambda label, value: names.index(str(value)) + 0.6 * ((labels.index(label) + 0.5) / len(labels) - 0.5)


def _many_places(axes: Axes, values: Sequence[float]) -> Places:
    """Set up a numeric axis, logarithmic if values span orders of magnitude, with 0 left of these."""
    least = min((value for value in values if value > 0), default=0)
    spread = max(values) / least if least else 0
    if min(values) < 0 or spread < _SPREAD:
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}".replace("-", "−")))
    else:
        subs = (1.0, 3.0) if spread < _LONG_SPREAD else (1.0,)
        if 0 in values:
            axes.set_xscale("symlog", linthresh=least)
        else:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _number(value)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    return lambda label, value: value


def _number(value: float) -> str:
    """Format a number of one significant digit: 0.3, 300, 3·10⁻⁵."""
    if value == 0 or 0.01 <= value < 10_000:
        return f"{value:g}"
    exponent = floor(log10(value) + 1e-9)
    digit = round(value / 10.0**exponent)
    power = "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return power if digit == 1 else f"{digit}·{power}"
