"""Test accuracy per environment, with standard errors."""

from collections.abc import Iterator
from functools import partial

from dg_batchformer.report.choices import Choices
from dg_batchformer.report.figures.intervals import Values, draw_intervals, height
from dg_batchformer.report.figures.svg import Plot, render
from dg_batchformer.report.looks import Looks

ABOUT = (
    "Mean test accuracy over trials with its standard error, as in the tables; faint dots are single trials. "
    "Every panel has its own scale."
)
LACKING = "No run has finished yet."


def accuracy_plots(choices: Choices, looks: Looks) -> Iterator[Plot]:
    """Yield the figure of each dataset."""
    for dataset in choices.datasets:
        labels = choices.labels(dataset)
        values = _values(choices, dataset)
        shown = {label: looks[label] for label in labels}
        about = f"{dataset}: test accuracy of {len(labels)} rows on each test environment, with standard errors"
        draw = partial(draw_intervals, values=values, looks=shown, unit="accuracy (%)")
        yield Plot(dataset, render(about, height(len(values), len(labels)), draw))


def _values(choices: Choices, dataset: str) -> Values:
    labels, envs = choices.labels(dataset), choices.envs(dataset)
    values = {
        choices.environment(dataset, env): {
            label: [100 * choice.score.test for choice in choices.trials(dataset, label, env).values()]
            for label in labels
        }
        for env in envs
    }
    average = {label: [100 * value for value in choices.averages(dataset, label).values()] for label in labels}
    return {**values, "Average": average} if len(envs) > 1 else values
