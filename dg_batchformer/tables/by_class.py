"""Tables of the accuracy on every class and on many-shot, medium-shot and few-shot classes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from dg_batchformer.results.collection import Collection
from dg_batchformer.results.metrics import METRICS, Measurements, Metric
from dg_batchformer.results.scores import Choice, Key, whole_trials
from dg_batchformer.tables.table import Cell, Section, Table, marked

_POOLED = {
    "many-shot": "many",
    "medium-shot": "medium",
    "few-shot": "few",
    "worst": "worst-class",
    "Average": "balanced",
}


def with_classes(sections: Sequence[Section], collection: Collection) -> list[Section]:
    """Add a table by class for every dataset whose runs have an imbalance."""
    return [replace(section, tables=[*section.tables, *_tables(section, collection)]) for section in sections]


def _tables(section: Section, collection: Collection) -> Iterable[Table]:
    for benchmark in collection.environments:
        choices = {key: choice for key, choice in section.choices.items() if key[0] == benchmark}
        classes = next((names for choice in choices.values() if (names := _classes(choice))), [])
        if classes:
            yield _table(benchmark, collection, choices, classes)


def _classes(choice: Choice) -> list[str]:
    """Return the names of the classes of a run; none if it has no imbalance."""
    counts = choice.run.constant.get("class_counts")
    return list(next(iter(counts.values()))) if isinstance(counts, Mapping) and counts else []


def _table(benchmark: str, collection: Collection, choices: Mapping[Key, Choice], classes: Sequence[str]) -> Table:
    each = {kind: Metric(kind, kind, keys=(f"class{label}_acc",)) for label, kind in enumerate(classes)}
    columns = {**each, **{title: METRICS[name] for title, name in _POOLED.items()}}
    measured = {name: Measurements(metric) for name, metric in columns.items()}
    rows = {}
    for label in collection.rows:
        trials = _by_trial(collection, benchmark, label, choices)
        rows[label] = [_cell(trials, of) for of in measured.values()]
    asked = {trial for _, _, _, trial in choices}
    notes = [
        "Accuracies on a class are means over test environments; Average: over classes, then over test environments",
    ]
    return marked(Table(f"{benchmark}, by class", "class", list(columns), rows, len(asked), notes,
                        benchmarks=[benchmark]))  # fmt: skip


def _by_trial(
    collection: Collection, benchmark: str, label: str, choices: Mapping[Key, Choice]
) -> Iterable[Mapping[int, Choice]]:
    """Return the choices of a row by environment, of every trial that has all environments of the row."""
    runs = [run for run in collection.runs if (run.benchmark, run.label) == (benchmark, label)]
    by_env: dict[int, dict[int, Choice]] = {env: {} for run in runs for env in run.reported}
    for (_, row, env, trial), choice in choices.items():
        if row == label:
            by_env[env][trial] = choice
    return whole_trials(by_env).values()


def _cell(trials: Iterable[Mapping[int, Choice]], measurements: Measurements) -> Cell:
    """Return the mean over trials of the mean over the test environments that have the metric."""
    means = []
    for choices in trials:
        scores = [measurements.score(choice.score, choice.run, env) for env, choice in choices.items()]
        if values := [score.test for score in scores if score is not None]:
            means.append(fmean(values))
    return Cell.of(means)
