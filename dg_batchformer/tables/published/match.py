"""Add published rows with the same dataset, backbone, weights and selection method to tables."""

from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace

from dg_batchformer.catalog.datasets import DATASETS, dataset_facts
from dg_batchformer.errors import unknown
from dg_batchformer.results.collection import CollectedRun
from dg_batchformer.spec.names import name_parts
from dg_batchformer.tables.published.data import AVERAGE, KINDS, Accuracy, Entry, Setting, load_published
from dg_batchformer.tables.published.setting import settings_of
from dg_batchformer.tables.table import Cell, PublishedRow, Section, Table

ALL = "all"
_MIXED = Setting("mixed", "mixed")  # a mean over datasets with different networks
_ABOUT = (
    "Rows with a source in parentheses are published: numbers and errors as printed there, – if there are none; "
    "best and second best are marked among the other rows"
)


def add_published(sections: Sequence[Section], runs: Sequence[CollectedRun], names: Sequence[str]) -> list[Section]:
    """Add published rows to the tables of sections, with notes on their sources.

    For every algorithm, the rows of all who ran it are shown, or else the first that quotes it.

    Args:
        sections: of the sweep.
        runs: of the sweep.
        names: of algorithms; empty for those of the runs, ``all`` for all.

    Raises InputError for a name without published results.

    """
    asked = _asked(names or list(dict.fromkeys(run.algorithm for run in runs)), must_exist=bool(names))
    settings = {name: settings_of([run for run in runs if run.dataset == name]) for name in DATASETS}
    described = "any algorithm" if ALL in names else ", ".join(dict.fromkeys(names or [run.algorithm for run in runs]))
    by_train_envs = {run.benchmark for run in runs if run.train_envs}
    return [_complete(section, asked, settings, described, by_train_envs) for section in sections]


_Settings = Mapping[str, Set[Setting]]  # by dataset
_Remarks = dict[str, dict[str, None]]  # remark -> labels, in order


def _complete(
    section: Section, asked: Sequence[Entry], settings: _Settings, described: str, by_train_envs: Set[str]
) -> Section:
    """Add published rows to the tables of a section, and their sources to its notes."""
    known = [entry for entry in asked if entry.selection == section.method.name]
    remarks: _Remarks = defaultdict(dict)
    tables = []
    for table in section.tables:
        rows = (_mean_rows if table.title == "Averages" else _rows)(table, known, settings, remarks)
        notes = [_ABOUT] if rows else []
        if table.title in settings and not rows:
            notes = [_nothing(table.title, section.method.name, described, known, settings[table.title])]
        if table.title in by_train_envs:
            notes = ["Published rows: none, as they are trained on all environments except the tested one"]
        tables.append(replace(table, published=rows, notes=[*table.notes, *notes]))
    sources = dict.fromkeys(row.source for table in tables for row in table.published)
    remarked = [f"{', '.join(labels)}: {remark}" for remark, labels in remarks.items()]
    return replace(section, tables=tables, notes=[*section.notes, *sources, *remarked])


def _asked(names: Sequence[str], *, must_exist: bool) -> list[Entry]:
    entries = load_published()
    if ALL in names:
        return list(entries)
    known = {name_parts(entry.algorithm): entry.algorithm for entry in entries}
    for name in names:
        if must_exist and name_parts(name) not in known:
            raise unknown("published algorithm", name, [ALL, *sorted(known.values())])
    wanted = {name_parts(name) for name in names}
    return [entry for entry in entries if name_parts(entry.algorithm) in wanted]


def _comparable(known: Sequence[Entry], dataset: str, settings: Set[Setting]) -> list[Entry]:
    """Return the entries to show for a dataset, grouped by algorithm."""
    by_algorithm: dict[str, list[Entry]] = defaultdict(list)
    for entry in known:
        if entry.setting in settings and any(name == dataset for name, _ in entry.accuracies):
            by_algorithm[entry.algorithm].append(entry)
    shown = []
    for entries in by_algorithm.values():
        first = min(KINDS.index(entry.kind) for entry in entries)
        trusted = [entry for entry in entries if KINDS.index(entry.kind) == first]
        shown += trusted if KINDS[first] == "ran" else trusted[:1]
    return shown


def _rows(table: Table, known: Sequence[Entry], settings: _Settings, remarks: _Remarks) -> list[PublishedRow]:
    """Return the rows of a dataset's table; an average is shown only if it is over the same environments."""
    if table.title not in settings:
        return []  # no published results
    whole = set(dataset_facts(table.title).names) <= set(table.columns)
    rows = []
    for entry in _comparable(known, table.title, settings[table.title]):
        found = [
            entry.accuracies.get((table.title, column)) if column != AVERAGE or whole else None
            for column in table.columns
        ]
        if any(found):
            rows.append(_row(entry, found, remarks))
    return rows


def _mean_rows(table: Table, known: Sequence[Entry], settings: _Settings, remarks: _Remarks) -> list[PublishedRow]:
    """Return the rows of a table of averages; entries with the same label share a row."""
    datasets = list(table.columns[:-1])
    averages: dict[str, dict[str, Accuracy | None]] = defaultdict(dict)
    first: dict[str, Entry] = {}
    for dataset in datasets:
        for entry in _comparable(known, dataset, settings.get(dataset, frozenset())):
            first.setdefault(entry.label, entry)
            averages[entry.label][dataset] = entry.accuracies.get((dataset, AVERAGE))
    same = {_MIXED, *set().union(*(settings.get(name, frozenset()) for name in datasets))}
    algorithms = list(dict.fromkeys(entry.algorithm for entry in first.values()))
    rows = []
    for label, entry in sorted(first.items(), key=lambda item: algorithms.index(item[1].algorithm)):
        found = [averages[label].get(dataset) for dataset in datasets]
        alike = [other for other in known if other.label == label and other.setting in same]
        found.append(_mean_over(alike, datasets) if all(found) else None)
        if any(found):
            rows.append(_row(entry, found, remarks))
    return rows


def _mean_over(entries: Sequence[Entry], datasets: Sequence[str]) -> Accuracy | None:
    for entry in entries:
        for (names, _), accuracy in entry.accuracies.items():
            if set(names.split("+")) == set(datasets):
                return accuracy
    return None


def _row(entry: Entry, found: Sequence[Accuracy | None], remarks: _Remarks) -> PublishedRow:
    for accuracy in found:
        if accuracy is not None and accuracy.notes:
            remarks[accuracy.notes][entry.label] = None
    cells = [Cell() if accuracy is None else Cell(accuracy.mean, accuracy.error) for accuracy in found]
    return PublishedRow(entry.label, entry.algorithm, entry.source.key, entry.source.sentence, cells)


def _nothing(dataset: str, selection: str, names: str, known: Sequence[Entry], settings: Set[Setting]) -> str:
    """Return a note that nothing is published in this setting, with the settings for which there are results."""
    if not settings:
        return f"Published rows: none for {dataset}, as no run has recorded its backbone yet"
    others = defaultdict(set)
    for entry in known:
        if any(name == dataset for name, _ in entry.accuracies):
            others[str(entry.setting)].add(entry.algorithm)
    looked = f"{names} on {dataset} with {' or '.join(sorted(map(str, settings)))} by {selection} selection"
    there = "; ".join(f"{', '.join(sorted(algorithms))} with {setting}" for setting, algorithms in others.items())
    return f"Published rows: none for {looked}; available: {there or 'none in other settings either'}"
