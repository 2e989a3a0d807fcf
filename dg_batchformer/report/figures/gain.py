"""Gain of BatchFormer: a row with +BF minus the same row without, trial by trial."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from dg_batchformer.report.choices import Choices
from dg_batchformer.report.figures.intervals import Values, draw_intervals, height
from dg_batchformer.report.figures.svg import Plot, render
from dg_batchformer.report.looks import Looks
from dg_batchformer.spec.names import name_parts
from dg_batchformer.stats.comparison import compare_pairs
from dg_batchformer.stats.verdict import sentence

ABOUT = (
    "Test accuracy of a row with +BF minus that of the row without, in percentage points, within each trial; both have "
    "the same splits and seeds. Mean over trials with its standard error; faint dots are single trials."
)


def bf_pairs(labels: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of labels (without, with) that differ in BF only; ERM is implied beside wrappers."""
    by_parts: dict[frozenset[str], str] = {}
    for label in labels:
        by_parts.setdefault(name_parts(label), label)
    return [
        (label, by_parts[without | {"BF"}])
        for without, label in by_parts.items()
        if "BF" not in without and without | {"BF"} in by_parts
    ]


def gain_plots(choices: Choices, looks: Looks) -> Iterator[Plot]:
    """Yield the figure of each dataset that has a pair."""
    for dataset in choices.datasets:
        pairs = bf_pairs(choices.labels(dataset))
        values = {panel: of_pair for panel, of_pair in gains(choices, dataset, pairs).items() if any(of_pair.values())}
        if not values:
            continue
        shown = {_name(pair): looks[pair[1]] for pair in pairs}
        about = f"{dataset}: gain of test accuracy by BF for {len(pairs)} pairs of rows on each test environment"
        draw = partial(draw_intervals, values=values, looks=shown, unit="points", zero=True)
        yield Plot(dataset, render(about, height(len(values), len(pairs)), draw), _sentences(choices, dataset, pairs))


def _sentences(choices: Choices, dataset: str, pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Return for every pair the sentence of ``compare`` on whether BF helps."""
    runs = [run for run in choices.collection.runs if run.benchmark == dataset]
    return [sentence(one) for one in compare_pairs(replace(choices.collection, runs=runs), pairs, choices.method)]


def _name(pair: tuple[str, str]) -> str:
    return f"{pair[1]} − {pair[0]}"


def gains(choices: Choices, dataset: str, pairs: Sequence[tuple[str, str]]) -> Values:
    """Return the gains of every pair in points, by environment and on average, for the trials that have both rows."""
    envs = choices.envs(dataset)
    values: dict[str, dict[str, Sequence[float]]] = {}
    for env in envs:
        tests = {
            label: {trial: choice.score.test for trial, choice in choices.trials(dataset, label, env).items()}
            for pair in pairs
            for label in pair
        }
        values[choices.environment(dataset, env)] = {_name(pair): _differences(tests, pair) for pair in pairs}
    if len(envs) > 1:
        averages = {label: choices.averages(dataset, label) for pair in pairs for label in pair}
        values["Average"] = {_name(pair): _differences(averages, pair) for pair in pairs}
    return values


def _differences(tests: Mapping[str, Mapping[int, float]], pair: tuple[str, str]) -> list[float]:
    without, with_bf = tests[pair[0]], tests[pair[1]]
    return [100 * (with_bf[trial] - without[trial]) for trial in with_bf if trial in without]
