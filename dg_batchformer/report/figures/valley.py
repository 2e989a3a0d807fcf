"""SWAD's loss valley: validation loss, threshold and averaged updates of one trial."""

from collections.abc import Iterator, Sequence
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dg_batchformer.report.choices import Choices
from dg_batchformer.report.figures.svg import INK, MUTED, ROWS, Plot, grid, left_out, render
from dg_batchformer.report.looks import Look, Looks
from dg_batchformer.results.collection import CollectedRun
from dg_batchformer.results.evaluations import Evaluations

ABOUT = (
    "Mean validation loss over the training environments, in the first trial. SWAD averages all updates in the shaded "
    "window; the valley ends where the loss exceeds the dashed threshold (absent if the loss never converged, and for "
    "IIDMax)."
)
LACKING = "No row averages weights."
_MOST_ROWS, _MOST_ENVS = 4, 6


def valley_plots(choices: Choices, looks: Looks) -> Iterator[Plot]:
    """Yield the figure of each dataset that has averaged models."""
    for dataset in choices.datasets:
        envs, labels = choices.envs(dataset), choices.labels(dataset)
        runs = {(label, env): _first(choices, dataset, label, env) for label in labels for env in envs}
        averaging = [label for label in labels if any(_averages(runs[label, env]) for env in envs)]
        if not averaging:
            continue
        rows, columns = averaging[:_MOST_ROWS], envs[:_MOST_ENVS]
        names = [choices.environment(dataset, env) for env in columns]
        lines = {label: [runs[label, env] for env in columns] for label in rows}
        about = f"{dataset}: validation loss and averaged updates of {', '.join(rows)} over training steps"
        draw = partial(_draw, lines=lines, names=names, looks=looks)
        notes = left_out(len(rows), len(averaging), "rows that average weights are drawn")
        notes += left_out(len(columns), len(envs), "environments are drawn")
        yield Plot(dataset, render(about, 0.7 + 1.4 * len(rows), draw), notes, rows)


def _first(choices: Choices, dataset: str, label: str, env: int) -> CollectedRun | None:
    trials = choices.trials(dataset, label, env)
    return trials[min(trials)].run if trials else None


def _averages(run: CollectedRun | None) -> bool:
    return run is not None and bool(run.evaluations.has("averaged_from").any())


def _draw(figure: Figure, lines: dict[str, list[CollectedRun | None]], names: Sequence[str], looks: Looks) -> None:
    axes = grid(figure, len(lines), len(names), left=0.5, between=(0.3, 0.3), sharex=True)
    for column, name in enumerate(names):
        axes[0][column].set_title(name)
        axes[-1][column].set_xlabel("step")
    for of_line, (label, runs) in zip(axes, lines.items(), strict=True):
        of_line[0].set_ylabel("validation loss")
        for of_run, run in zip(of_line, runs, strict=True):
            of_run.yaxis.set_major_locator(MaxNLocator(4))
            of_run.xaxis.set_major_locator(MaxNLocator(4))
            if run is not None:
                _draw_valley(of_run, run.evaluations, looks[label])


def _draw_valley(axes: Axes, evaluations: Evaluations, look: Look) -> None:
    colour = ROWS[look.colour]
    training, final = evaluations.at(~evaluations.final), evaluations.latest()
    mean, known = training.mean([key for key in training.keys if key.endswith("_out_loss")])
    axes.plot(training.steps[known], mean[known], color=INK, linewidth=1.1)
    if "averaged_from" in final:
        axes.axvspan(final["averaged_from"], final["averaged_to"], color=colour, alpha=0.22, linewidth=0)
    if "valley_threshold" in final:
        axes.axhline(final["valley_threshold"], color=MUTED, linewidth=1, linestyle="dashed")
