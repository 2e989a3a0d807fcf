"""In-domain against out-of-domain accuracy of every selected model."""

from collections.abc import Iterator
from functools import partial

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dg_batchformer.report.choices import Choices
from dg_batchformer.report.figures.svg import MUTED, ROWS, Plot, panels_in_lines, render
from dg_batchformer.report.looks import Looks

ABOUT = (
    "Each mark is the selected model of a trial and test environment: its mean accuracy on the held-out splits of the "
    "training environments (x) and its accuracy on the test environment (y). Every panel has its own scale; both are "
    "equal on the dashed line."
)
LACKING = "The records have no accuracies on held-out splits of training environments."
_COLUMNS = 4


def transfer_plots(choices: Choices, looks: Looks) -> Iterator[Plot]:
    """Yield the figure of each dataset."""
    for dataset in choices.datasets:
        panels = {choices.environment(dataset, env): _points(choices, dataset, env) for env in choices.envs(dataset)}
        labels = [label for label in choices.labels(dataset) if any(points.get(label) for points in panels.values())]
        if labels:
            about = f"{dataset}: in-domain accuracy against test accuracy of the selected models of {len(labels)} rows"
            lines = -(-len(panels) // _COLUMNS)
            svg = render(about, 0.7 + 2.05 * lines + 0.5 * (lines - 1), partial(_draw, panels=panels, looks=looks))
            yield Plot(dataset, svg, (), labels)


Points = dict[str, list[tuple[float, float]]]  # by row: (in-domain, test) in percent


def _points(choices: Choices, dataset: str, env: int) -> Points:
    return {
        label: [
            (100 * choice.score.in_domain, 100 * choice.score.test)
            for choice in choices.trials(dataset, label, env).values()
            if choice.score.in_domain is not None
        ]
        for label in choices.labels(dataset)
    }


def _draw(figure: Figure, panels: dict[str, Points], looks: Looks) -> None:
    for first, line in panels_in_lines(figure, list(panels), _COLUMNS, left=0.5, between=(0.42, 0.75)):
        first.set_ylabel("test (%)")
        for axes, name in line:
            axes.set_title(name)
            axes.set_xlabel("in-domain (%)")
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.yaxis.set_major_locator(MaxNLocator(4))
            for label, points in panels[name].items():
                look = looks[label]
                if points:
                    axes.plot(
                        *zip(*points, strict=True), look.marker, color=ROWS[look.colour], alpha=0.75, markeredgewidth=0
                    )
            axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())  # the line must not widen the panel
            axes.axline((0, 0), slope=1, color=MUTED, linewidth=0.9, linestyle="dashed")
