"""Tables of the accuracy on every class and on many-shot, medium-shot and few-shot classes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from dg_batchformer.results.collection import Collection
from dg_batchformer.results.metrics import METRICS, Measurements, Metric
from dg_batchformer.results.scores import Choice, Key
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
            yield _table(benchmark, collection.rows, choices, classes)


def _classes(choice: Choice) -> list[str]:
    """Return the names of the classes of a run; none if it has no imbalance."""
    counts = choice.run.constant.get("class_counts")
    return list(next(iter(counts.values()))) if isinstance(counts, Mapping) and counts else []


def _table(benchmark: str, labels: Sequence[str], choices: Mapping[Key, Choice], classes: Sequence[str]) -> Table:
    each = {kind: Metric(kind, kind, keys=(f"class{label}_acc",)) for label, kind in enumerate(classes)}
    columns = {**each, **{title: METRICS[name] for title, name in _POOLED.items()}}
    measured = {name: Measurements(metric) for name, metric in columns.items()}
    rows = {label: [_cell(choices, label, of) for of in measured.values()] for label in labels}
    trials = {trial for _, _, _, trial in choices}
    notes = [
        "Accuracies on a class are means over test environments; Average: over classes, then over test environments",
    ]
    return marked(Table(f"{benchmark}, by class", "class", list(columns), rows, len(trials), notes,
                        benchmarks=[benchmark]))  # fmt: skip


def _cell(choices: Mapping[Key, Choice], label: str, measurements: Measurements) -> Cell:
    """Return the mean over trials of the mean over test environments."""
    by_trial: dict[int, list[float]] = {}
    for (_, row, env, trial), choice in choices.items():
        if row == label and (score := measurements.score(choice.score, choice.run, env)) is not None:
            by_trial.setdefault(trial, []).append(score.test)
    return Cell.of([fmean(values) for values in by_trial.values()])
