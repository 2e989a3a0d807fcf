"""Accuracy on many-shot, medium-shot and few-shot classes against the ratio of an imbalance."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from statistics import fmean, pstdev

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from dg_batchformer.report.choices import Choices
from dg_batchformer.report.figures.svg import ROWS, Plot, grid, render
from dg_batchformer.report.looks import Looks
from dg_batchformer.results.metrics import METRICS, Measurements
from dg_batchformer.spec.imbalance import THINNED

ABOUT = (
    "Mean accuracy over test environments, with its standard error over trials, against the ratio of the largest class "
    "or environment to the smallest. Few-shot classes are those with few training images; the tables state the "
    "thresholds."
)
_PANELS = {"many-shot": "many", "medium-shot": "medium", "few-shot": "few", "all classes": "balanced"}

Values = Mapping[float, Mapping[str, Sequence[float]]]  # ratio -> row -> percent by trial


def ratio_plots(choices: Choices, looks: Looks) -> Iterator[Plot]:
    """Draw every dataset that was trained on with several ratios of an imbalance."""
    for title, benchmarks in _series(choices).items():
        if len(benchmarks) < 2:
            continue
        trained = {label for benchmark in benchmarks.values() for label in choices.labels(benchmark)}
        labels = [label for label in choices.collection.rows if label in trained]
        panels = {name: _values(choices, benchmarks, labels, metric) for name, metric in _PANELS.items()}
        about = f"{title}: accuracy of {len(labels)} rows by class frequency, against {len(benchmarks)} ratios"
        shown = {label: looks[label] for label in labels}
        yield Plot(title, render(about, 3.0, partial(_draw, panels=panels, looks=shown)), key=labels)


def _series(choices: Choices) -> dict[str, dict[float, str]]:
    """Return the benchmarks that differ only in their ratio, by ratio."""
    series: dict[str, dict[float, str]] = defaultdict(dict)
    imbalances = {run.benchmark: run.imbalance for run in choices.collection.runs}
    for benchmark in choices.datasets:
        setting, _, rest = imbalances[benchmark].partition(":")
        if setting in THINNED:
            ratio, _, order = rest.partition(":")
            title = f"{benchmark.removesuffix(imbalances[benchmark])}{setting} {order}".strip()
            series[title][float(ratio)] = benchmark
    return {title: dict(sorted(by_ratio.items())) for title, by_ratio in series.items()}


def _values(choices: Choices, benchmarks: Mapping[float, str], labels: Sequence[str], metric: str) -> Values:
    measurements = Measurements(METRICS[metric])
    return {
        ratio: {label: _by_trial(choices, benchmark, label, measurements) for label in labels}
        for ratio, benchmark in benchmarks.items()
    }


def _by_trial(choices: Choices, benchmark: str, label: str, measurements: Measurements) -> list[float]:
    """Return the mean over test environments in percent, of every trial."""
    by_trial: dict[int, list[float]] = defaultdict(list)
    for env in choices.envs(benchmark):
        for trial, choice in choices.trials(benchmark, label, env).items():
            if (score := measurements.score(choice.score, choice.run, env)) is not None:
                by_trial[trial].append(100 * score.test)
    return [fmean(values) for values in by_trial.values()]


def _draw(figure: Figure, panels: Mapping[str, Values], looks: Looks) -> None:
    [line] = grid(figure, 1, len(panels), left=0.5, between=(0.3, 0.3), sharey=True)
    line[0].set_ylabel("test accuracy (%)")
    for axes, (name, values) in zip(line, panels.items(), strict=True):
        axes.set_title(name)
        axes.set_xlabel("ratio")
        axes.set_xscale("log")
        axes.set_xticks(list(values), [f"{ratio:g}" for ratio in values])
        axes.xaxis.set_minor_locator(NullLocator())
        for label, look in looks.items():
            found = {ratio: by_label[label] for ratio, by_label in values.items() if by_label[label]}
            means = [fmean(of_ratio) for of_ratio in found.values()]
            errors = [pstdev(of_ratio) / len(of_ratio) ** 0.5 for of_ratio in found.values()]
            colour = ROWS[look.colour]
            axes.errorbar(list(found), means, errors, color=colour, linestyle=look.dash, marker=look.marker)
