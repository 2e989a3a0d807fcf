"""The data of every figure as a tidy DataFrame: one line for each mark. Accuracies are in percent, gains in points."""

from collections.abc import Iterable, Sequence
from math import isfinite
from statistics import fmean, pstdev
from typing import Any

import numpy as np
import pandas as pd

from dg_batchformer.report.choices import Choices
from dg_batchformer.results.collection import DEFAULTS, Candidate, CollectedRun, Collection
from dg_batchformer.results.selection import METHODS, validation_accuracy
from dg_batchformer.stats.comparison import Comparison
from dg_batchformer.stats.pairs import blocks_by_benchmark

AVERAGE = "Average"
_MOST_STEPS = 80


def _frame(lines: Iterable[Sequence[Any]], columns: str) -> pd.DataFrame:
    return pd.DataFrame(list(lines), columns=columns.split())


def reference_row(labels: Sequence[str]) -> str:
    """Return the row that the others are compared with: ERM, else the first."""
    return "ERM" if "ERM" in labels else labels[0]


def reference_pairs(choices: Choices) -> list[tuple[str, str]]:
    """Return the pairs (reference row, other row) of the rows that have a score."""
    there = {label for dataset in choices.datasets for label in choices.labels(dataset)}
    labels = [label for label in choices.collection.rows if label in there]
    base = reference_row(labels) if labels else ""
    return [(base, label) for label in labels if label != base]


def gain_frame(choices: Choices, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Return the gain of row over row: the average first, with ``compare``'s 95 % interval, then every environment.

    Columns: dataset, row, over, environment, gain, low, high, trials. Environments have the standard error over
    trials. With several datasets, lines of the dataset ``all`` come first: their average, then every dataset.
    """
    datasets = list(choices.datasets)
    lines: list[Sequence[Any]] = []
    if len(datasets) > 1:
        for found in choices.comparisons(pairs):
            lines.append(["all", *_mean_gain(found)])
            for name, blocks in blocks_by_benchmark(found.blocks).items():
                values = [block.difference for block in blocks]
                lines.append(["all", found.other, found.baseline, name, fmean(values), np.nan, np.nan, np.nan])
    for dataset in datasets:
        for found in choices.comparisons(pairs, dataset):
            lines.append([dataset, *_mean_gain(found)])
            for block in found.blocks:
                low, high = _standard_error(block.differences)
                place = found.other, found.baseline, block.environment
                lines.append([dataset, *place, block.difference, low, high, len(block.trials)])
    frame = _frame(lines, "dataset row over environment gain low high trials")
    return frame[frame.gain.notna()].reset_index(drop=True)


def _mean_gain(found: Comparison) -> list[Any]:
    low, high = found.interval or (np.nan, np.nan)
    mean = np.nan if found.mean is None else found.mean
    trials = max((len(block.trials) for block in found.blocks), default=0)
    return [found.other, found.baseline, AVERAGE, mean, low, high, trials]


def _standard_error(values: Sequence[float]) -> tuple[float, float]:
    """Return mean less and plus the standard error; NaN for one value."""
    if len(values) < 2 or not all(map(isfinite, values)):
        return np.nan, np.nan
    mean, error = fmean(values), pstdev(values) / len(values) ** 0.5
    return mean - error, mean + error


def accuracy_frame(choices: Choices) -> pd.DataFrame:
    """Return the test accuracy of every row: the average first, then every environment.

    Columns: dataset, row, environment, accuracy, low, high, trials. Environments have the standard error over trials.
    The average has ``compare``'s interval of the difference to the reference row, placed around that row's average:
    it excludes this average exactly if ``compare`` finds a difference.
    """
    lines: list[Sequence[Any]] = []
    for dataset in choices.datasets:
        labels = choices.labels(dataset)
        base = reference_row(labels)
        pairs = [(base, label) for label in labels if label != base]
        found = {one.other: one for one in choices.comparisons(pairs, dataset)}
        averages = {label: [100 * value for value in choices.averages(dataset, label).values()] for label in labels}
        several = len(choices.envs(dataset)) > 1
        for label in labels:
            if several and averages[label]:
                interval = found[label].interval if label in found and averages[base] else None
                low, high = interval or (np.nan, np.nan)
                mean = fmean(averages[base]) if averages[base] else np.nan
                place = [dataset, label, AVERAGE, fmean(averages[label])]
                lines.append([*place, mean + low, mean + high, len(averages[label])])
            for env in choices.envs(dataset):
                values = [100 * choice.score.test for choice in choices.trials(dataset, label, env).values()]
                if values:
                    place = [dataset, label, choices.environment(dataset, env), fmean(values)]
                    lines.append([*place, *_standard_error(values), len(values)])
    return _frame(lines, "dataset row environment accuracy low high trials")


def selection_frame(collection: Collection, methods: Sequence[str] = tuple(METHODS)) -> pd.DataFrame:
    """Return the average test accuracy of every row by selection method.

    Columns: dataset, row, selection, accuracy, trials. Methods that select nothing are left out.
    """
    lines = []
    for name in methods:
        choices = Choices(collection, METHODS[name])
        for dataset in choices.datasets:
            for label in choices.labels(dataset):
                values = list(choices.averages(dataset, label).values())
                if values:
                    lines.append([dataset, label, name, 100 * fmean(values), len(values)])
    return _frame(lines, "dataset row selection accuracy trials")


def curve_frame(choices: Choices) -> pd.DataFrame:
    """Return accuracies over steps, means over trials, of the selected draws.

    Columns: dataset, row, environment, split (validation or test), model (trained or averaged), step, to_step,
    accuracy, error. ``to_step`` is the last update that an averaged model includes, NaN for trained models.
    """
    lines: list[Sequence[Any]] = []
    for dataset in choices.datasets:
        for env in choices.envs(dataset):
            for label in choices.labels(dataset):
                runs = [choice.run for choice in choices.trials(dataset, label, env).values()]
                for split in ("validation", "test") if runs else ():
                    place = dataset, label, choices.environment(dataset, env), split
                    lines += [[*place, *line] for line in _curve(runs, env, test=split == "test")]
    return _frame(lines, "dataset row environment split model step to_step accuracy error")


def _curve(runs: Sequence[CollectedRun], env: int, *, test: bool) -> list[list[Any]]:
    """Average runs over the steps that all of them evaluated."""
    by_step = [_accuracies(run, env, test=test) for run in runs]
    common = sorted(set.intersection(*map(set, by_step)))
    if len(common) > _MOST_STEPS:
        common = [common[round(place)] for place in np.linspace(0, len(common) - 1, _MOST_STEPS)]
    lines = []
    for step in common:
        values = [100 * of_run[step] for of_run in by_step]
        lines.append(["trained", step, np.nan, np.mean(values), np.std(values) / len(values) ** 0.5])
    windows = [window for run in runs for window in _window(run, env, test=test)]
    if windows:
        begin, end, accuracy = np.mean(windows, axis=0).tolist()
        lines.append(["averaged", begin, end, accuracy, np.nan])
    return lines


def _accuracies(run: CollectedRun, env: int, *, test: bool) -> dict[int, float]:
    """Return accuracies during training by step."""
    evaluations = run.evaluations.at(~run.evaluations.final)
    if test:
        values, has = evaluations.column(f"env{env}_in_acc"), evaluations.has(f"env{env}_in_acc")
    else:
        values, has = validation_accuracy(evaluations, run.validating(env))
    return dict(zip(evaluations.steps[has].tolist(), values[has].tolist(), strict=True))


def _window(run: CollectedRun, env: int, *, test: bool) -> list[tuple[float, float, float]]:
    """Return the first and last update averaged and the accuracy of the averaged model, if there is one."""
    final = run.evaluations.at(run.evaluations.final)
    if not (final.has("averaged_from").any() and final.has("averaged_to").any()):
        return []
    values = final.column(f"env{env}_in_acc") if test else validation_accuracy(final, run.validating(env))[0]
    return [(final.column("averaged_from")[-1], final.column("averaged_to")[-1], 100 * values[-1])]


def transfer_frame(choices: Choices) -> pd.DataFrame:
    """Return in-domain and test accuracy of every selected model, means over trials.

    Columns: dataset, row, environment, in_domain, test, trials.
    """
    lines = []
    for dataset in choices.datasets:
        for label in choices.labels(dataset):
            for env in choices.envs(dataset):
                scores = [choice.score for choice in choices.trials(dataset, label, env).values()]
                both = [(one.in_domain, one.test) for one in scores if one.in_domain is not None]
                if both and np.isfinite(both).all():
                    means = [100 * fmean(values) for values in zip(*both, strict=True)]
                    lines.append([dataset, label, choices.environment(dataset, env), *means, len(both)])
    return _frame(lines, "dataset row environment in_domain test trials")


def valley_frame(choices: Choices) -> pd.DataFrame:
    """Return the validation loss over steps of rows that average weights, for their first trial.

    Columns: dataset, row, environment, step, loss, then averaged_from, averaged_to and threshold, which repeat.
    """
    lines: list[Sequence[Any]] = []
    for dataset in choices.datasets:
        for label in choices.labels(dataset):
            for env in choices.envs(dataset):
                trials = choices.trials(dataset, label, env)
                run = trials[min(trials)].run if trials else None
                if run is None or not run.evaluations.has("averaged_from").any():
                    continue
                training, final = run.evaluations.at(~run.evaluations.final), run.evaluations.latest()
                mean, known = training.mean([key for key in training.keys if key.endswith("_out_loss")])
                window = [final.get(name, np.nan) for name in ("averaged_from", "averaged_to", "valley_threshold")]
                place = dataset, label, choices.environment(dataset, env)
                pairs = zip(training.steps[known].tolist(), mean[known].tolist(), strict=True)
                lines += [[*place, step, loss, *window] for step, loss in pairs]
    return _frame(lines, "dataset row environment step loss averaged_from averaged_to threshold")


def draw_frame(choices: Choices) -> pd.DataFrame:
    """Return the validation accuracy of every random draw or grid point, averaged over test environments, by hparam.

    Columns: dataset, row, trial, draw, hparam, value, accuracy. Hparams that are equal in all draws are left out.
    """
    collection, lines = choices.collection, []
    groups: dict[tuple[str, str, int, Candidate], list[CollectedRun]] = {}
    several = {(run.benchmark, run.label) for run in collection.runs if run.candidate != DEFAULTS}
    for run in collection.runs:
        if (run.benchmark, run.label) in several:
            groups.setdefault((run.benchmark, run.label, run.trial_seed, run.candidate), []).append(run)
    for place, runs in groups.items():
        number = len(collection.environments[place[0]])
        scores = [choices.method.select(runs, env, number) for env in range(number)]
        found = [score.validation for score in scores if score is not None]
        hparams: dict[str, Any] = next(
            (run.constant["hparams"] for run in runs if isinstance(run.constant.get("hparams"), dict)), {}
        )
        for name, value in hparams.items() if found else ():
            if isinstance(value, str) or (isinstance(value, int | float) and isfinite(value)):
                lines.append([*place[:3], place[3].seed, name, value, 100 * fmean(found)])
    frame = _frame(lines, "dataset row trial draw hparam value accuracy")
    frame["value"] = frame["value"].astype(object)
    kinds = frame.groupby(["dataset", "row", "hparam"], sort=False)["value"].transform(lambda values: len(set(values)))
    drawn = frame[kinds > 1][["dataset", "hparam"]].drop_duplicates()
    return frame.merge(drawn, on=["dataset", "hparam"])
