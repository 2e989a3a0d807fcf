"""Accuracy on many-shot, medium-shot and few-shot classes against the ratio of an imbalance."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from dg_batchformer.report.choices import Choices
from dg_batchformer.report.figures.canvas import WIDE, panels, styled
from dg_batchformer.report.looks import Looks
from dg_batchformer.results.metrics import METRICS, Measurements
from dg_batchformer.results.scores import whole_trials
from dg_batchformer.spec.imbalance import THINNED
from dg_batchformer.stats.statistics import half_interval

_PANELS = {"many-shot": "many", "medium-shot": "medium", "few-shot": "few", "all classes": "balanced"}
_COLUMNS = ["dataset", "row", "classes", "ratio", "accuracy", "interval", "trials"]


def ratio_frame(choices: Choices) -> pd.DataFrame:
    """Return the mean test accuracy of every row by class frequency and ratio, with its 95 % interval over trials.

    Columns: dataset, row, classes, ratio, accuracy, interval (half its width; NaN for one trial), trials; only of
    datasets trained on with several ratios.
    """
    lines: list[Sequence[Any]] = []
    measured = {name: Measurements(METRICS[metric]) for name, metric in _PANELS.items()}
    for title, benchmarks in _series(choices).items():
        if len(benchmarks) < 2:
            continue
        trained = {label for benchmark in benchmarks.values() for label in choices.labels(benchmark)}
        for label in (label for label in choices.collection.rows if label in trained):
            for name, measurements in measured.items():
                for ratio, benchmark in benchmarks.items():
                    if found := _by_trial(choices, benchmark, label, measurements):
                        lines.append([title, label, name, ratio, fmean(found), half_interval(found), len(found)])
    return pd.DataFrame(lines, columns=_COLUMNS)


def _series(choices: Choices) -> Mapping[str, Mapping[float, str]]:
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


def _by_trial(choices: Choices, benchmark: str, label: str, measurements: Measurements) -> list[float]:
    """Return the mean over test environments in percent, of every trial.

    A trial counts if every environment has a value, so that points of a line are means over the same environments.
    """
    by_env: dict[int, dict[int, float]] = {}
    for env in choices.envs(benchmark):
        chosen = choices.trials(benchmark, label, env)
        scores = {trial: measurements.score(choice.score, choice.run, env) for trial, choice in chosen.items()}
        by_env[env] = {trial: 100 * score.test for trial, score in scores.items() if score is not None}
    return [fmean(values.values()) for values in whole_trials(by_env).values()]


@styled
def ratio_figure(frame: pd.DataFrame, looks: Looks, width: float = WIDE) -> Figure:
    """Draw accuracy against the ratio, in a panel for each group of classes; see ``ratio_frame``."""
    names = list(dict.fromkeys(frame.classes))
    figure, grid = panels(names, len(names) if width > 6 else 1, width=width, height=1.6, left=0.6, sharey=True)
    ratios = sorted(set(frame.ratio))
    for axes, name in zip([axes for line in grid for axes in line], names, strict=True):
        axes.set_xlabel("ratio")
        axes.set_xscale("log")
        axes.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
        axes.set_xlim(ratios[0] / 1.1, ratios[-1] * 1.1)
        axes.xaxis.set_minor_locator(NullLocator())
        for row, found in frame[frame.classes == name].groupby("row", sort=False):
            look = looks[str(row)]
            axes.errorbar(found.ratio, found.accuracy, found.interval, color=look.hex, linestyle=look.dash,
                          marker=look.marker)  # fmt: skip
    for line in grid:
        line[0].set_ylabel("test accuracy (%)")
    return figure
