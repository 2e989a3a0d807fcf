"""Validation and test accuracy over steps, with the span that SWAD averaged."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dg_batchformer.report.choices import Choices
from dg_batchformer.report.figures.svg import ROWS, Plot, chunks, grid, left_out, render
from dg_batchformer.report.looks import Look, Looks
from dg_batchformer.results.collection import CollectedRun
from dg_batchformer.results.evaluations import Floats
from dg_batchformer.results.selection import validation_accuracy

ABOUT = (
    "Mean over trials of the selected draw; the band is one standard error. Validation is the mean accuracy on the "
    "held-out splits of the training environments. A thick bar spans the updates that a method such as SWAD averaged, "
    "at the accuracy of the averaged model (means over trials). The steep start of training is outside the panels. "
    "SWAD trains like the algorithm inside it, so their curves coincide."
)
LACKING = "No run has finished yet."
_MOST_ROWS = 8
_MOST_STEPS = 80
_COLUMNS = 4


@dataclass(frozen=True)
class Curve:
    """Accuracies in percent over S steps, and the averaged model if any.

    Args:
        mean, error: mean and standard error over trials, of shape [S].
        window: first and last averaged update, and accuracy of the averaged model.

    """

    steps: Floats
    mean: Floats
    error: Floats
    window: tuple[float, float, float] | None


def curve_plots(choices: Choices, looks: Looks) -> Iterator[Plot]:
    """Yield the figure of each dataset."""
    for dataset in choices.datasets:
        labels = choices.best_labels(dataset, _MOST_ROWS)
        lines = list(chunks(choices.envs(dataset), _COLUMNS))
        about = f"{dataset}: validation and test accuracy of {len(labels)} rows over training steps"
        shown = {label: looks[label] for label in labels}
        draw = partial(_draw, choices=choices, dataset=dataset, lines=lines, looks=shown)
        notes = left_out(len(labels), len(choices.labels(dataset)), "rows are drawn, those with the best averages")
        yield Plot(dataset, render(about, 0.7 + 3.1 * len(lines), draw), notes, labels)


def _draw(figure: Figure, choices: Choices, dataset: str, lines: Sequence[Sequence[int]], looks: Looks) -> None:
    """Draw a column for each environment: validation accuracy above, test accuracy below."""
    axes = grid(figure, 2 * len(lines), len(lines[0]), left=0.5, between=(0.3, 0.32), sharex=True)
    for row, of_row in enumerate(axes):
        envs, test = lines[row // 2], row % 2 == 1
        of_row[0].set_ylabel("test (%)" if test else "validation (%)")
        for panel in of_row[len(envs) :]:
            panel.set_visible(False)
        for panel, env in zip(of_row, envs, strict=False):
            if not test:
                panel.set_title(choices.environment(dataset, env))
            runs = {label: [choice.run for choice in choices.trials(dataset, label, env).values()] for label in looks}
            curves = {label: mean_curve(of_label, env, test=test) for label, of_label in runs.items()}
            _draw_panel(panel, {label: curve for label, curve in curves.items() if curve is not None}, looks)
    for panel in axes[-1]:
        panel.set_xlabel("step")


def _draw_panel(axes: Axes, curves: Mapping[str, Curve], looks: Looks) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    for label, curve in curves.items():
        _draw_curve(axes, curve, looks[label])
    _cut_beginning(axes, list(curves.values()))


def _draw_curve(axes: Axes, curve: Curve, look: Look) -> None:
    colour = ROWS[look.colour]
    axes.plot(curve.steps, curve.mean, color=colour, linestyle=look.dash)
    if curve.error.any():
        low, high = curve.mean - curve.error, curve.mean + curve.error
        axes.fill_between(curve.steps, low, high, color=colour, alpha=0.14, linewidth=0)
    if curve.window is not None:
        begin, end, accuracy = curve.window
        axes.plot([begin, end], [accuracy, accuracy], color=colour, linewidth=2.6, solid_capstyle="butt")


def _cut_beginning(axes: Axes, curves: Sequence[Curve]) -> None:
    """Scale the panel to the accuracies after the first tenth of training, where rows differ."""
    later = [curve.mean[curve.steps >= 0.1 * curve.steps[-1]] for curve in curves if len(curve.steps) > 2]
    lowest = min((float(values.min()) for values in later if np.isfinite(values).all()), default=None)
    if lowest is not None:
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, lowest - 0.06 * (high - lowest)), min(high, 101))


def mean_curve(runs: Sequence[CollectedRun], env: int, *, test: bool) -> Curve | None:
    """Average runs at the steps that all of them evaluated; None without runs."""
    accuracy = [_accuracy(run, env, test=test) for run in runs]
    if not accuracy:
        return None
    common = sorted(set.intersection(*(set(values) for values in accuracy)))
    if len(common) > _MOST_STEPS:
        common = [common[round(place)] for place in np.linspace(0, len(common) - 1, _MOST_STEPS)]
    values = 100 * np.array([[of_run[step] for step in common] for of_run in accuracy])
    return Curve(
        np.array(common, float),
        values.mean(axis=0),
        values.std(axis=0) / len(runs) ** 0.5,
        _window(runs, env, test=test),
    )


def _accuracy(run: CollectedRun, env: int, *, test: bool) -> dict[int, float]:
    """Return the accuracies during training by step."""
    evaluations = run.evaluations.at(~run.evaluations.final)
    key = f"env{env}_in_acc"
    validating = run.validating(env)
    values, has = (
        (evaluations.column(key), evaluations.has(key)) if test else validation_accuracy(evaluations, validating)
    )
    return dict(zip(evaluations.steps[has].tolist(), values[has].tolist(), strict=True))


def _window(runs: Sequence[CollectedRun], env: int, *, test: bool) -> tuple[float, float, float] | None:
    found = []
    for run in runs:
        final = run.evaluations.at(run.evaluations.final)
        if final.has("averaged_from").any() and final.has("averaged_to").any():
            values = final.column(f"env{env}_in_acc") if test else validation_accuracy(final, run.validating(env))[0]
            found.append((final.column("averaged_from")[-1], final.column("averaged_to")[-1], 100 * values[-1]))
    if not found:
        return None
    begin, end, accuracy = np.mean(found, axis=0).tolist()
    return begin, end, accuracy
