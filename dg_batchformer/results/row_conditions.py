"""Differences between rows of a table beyond their algorithm, and their deviations from their protocol."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from dg_batchformer.errors import InputError
from dg_batchformer.results.collection import CollectedRun, most_draws
from dg_batchformer.results.conditions import DERIVED, FIELDS, UNKNOWN, as_text
from dg_batchformer.spec.protocols import get_protocol
from dg_batchformer.spec.run import RunRequest

DIFFERS = "§"
"""Marks a row that differs from the others beyond its algorithm."""

_OF_THE_ROW = {"algorithm", "plugins"}
_NETWORK = (
    *("backbone", "weights", "image_size", "freeze_bn", "freeze"),
    *("resnet18", "resnet50_augmix", "vit", "dinov2"),  # DomainBed's
)


@dataclass(frozen=True)
class RowConditions:
    """Conditions of the rows of a table, by label; rows without any are omitted.

    Args:
        differs: differences of a row from most others, beyond its algorithm.
        deviations: from its protocol. protocols: their names.

    """

    differs: Mapping[str, Sequence[str]] = field(default_factory=dict)
    deviations: Mapping[str, Sequence[str]] = field(default_factory=dict)
    protocols: Mapping[str, str] = field(default_factory=dict)

    @property
    def notes(self) -> list[str]:
        """Notes on rows that differ, and on deviations from protocols."""
        rows = "; ".join(f"{label} ({', '.join(texts)})" for label, texts in self.differs.items())
        differing = [f"{DIFFERS} differs from the other rows in more than the algorithm: {rows}"] if rows else []
        return [*differing, *self.about_protocols()]

    def about_protocols(self) -> list[str]:
        """Return one note per protocol that rows deviate from."""
        found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for label, texts in self.deviations.items():
            for text in texts:
                found[self.protocols[label]][text].append(label)
        every = len(self.protocols)
        return [
            f"deviates from protocol {protocol}: "
            + "; ".join(f"{text} ({', '.join(rows)})" if len(rows) < every else text for text, rows in by_text.items())
            for protocol, by_text in found.items()
        ]


def by_benchmark(runs: Iterable[CollectedRun], labels: Sequence[str]) -> dict[str, RowConditions]:
    """Return the conditions of rows by benchmark."""
    cells: dict[str, dict[str, list[CollectedRun]]] = defaultdict(dict)
    for run in sorted(
        (run for run in runs if run.constant and run.label in labels), key=lambda run: labels.index(run.label)
    ):
        cells[run.benchmark].setdefault(run.label, []).append(run)
    return {
        benchmark: RowConditions(
            _differing({label: _Row.of(of_row) for label, of_row in rows.items()}),
            {label: texts for label, of_row in rows.items() if (texts := _deviations(of_row))},
            {label: str(name) for label, of_row in rows.items() if (name := of_row[0].constant.get("protocol"))},
        )
        for benchmark, rows in cells.items()
    }


def joined(said: Mapping[str, RowConditions], benchmarks: Sequence[str]) -> RowConditions:
    """Merge the conditions of several benchmarks; those that do not hold on all name their benchmarks."""
    there = {name: said[name] for name in benchmarks if name in said}
    return RowConditions(
        _join({name: one.differs for name, one in there.items()}),
        _join({name: one.deviations for name, one in there.items()}),
        {label: protocol for one in there.values() for label, protocol in one.protocols.items()},
    )


def _join(by_benchmark: Mapping[str, Mapping[str, Sequence[str]]]) -> dict[str, list[str]]:
    places: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for benchmark, by_label in by_benchmark.items():
        for label, texts in by_label.items():
            for text in texts:
                places[label][text].append(benchmark)
    every = len(by_benchmark)
    return {
        label: [text if len(where) == every else f"{text} on {' and '.join(where)}" for text, where in texts.items()]
        for label, texts in places.items()
    }


class _Row(NamedTuple):
    """A row on a benchmark: its fields, its hparams, and the names of those set by the user."""

    fields: Mapping[str, str]
    hparams: Mapping[str, str]
    given: frozenset[str]

    @classmethod
    def of(cls, runs: Sequence[CollectedRun]) -> "_Row":
        fields = _values(run.conditions.fields for run in runs)
        hparams = _values(run.conditions.hparams for run in runs)
        is_drawn = any(run.hparams_seed for run in runs)
        listed = {name for run in runs for name in run.point}
        if not any("soup_members" in run.constant for run in runs):  # a soup is of all draws
            fields["draws"] = [str(most_draws(runs))]
        return cls(
            {name: " and ".join(values) for name, values in fields.items() if name not in {"hparams", *_OF_THE_ROW}},
            {
                name: "drawn" if is_drawn and len(values) > 1 else (" or " if name in listed else " and ").join(values)
                for name, values in hparams.items()
            },
            frozenset(name for run in runs for name in run.conditions.given),
        )


def _values(found: Iterable[Mapping[str, str]]) -> dict[str, list[str]]:
    """Collect the distinct values of every name."""
    values: dict[str, dict[str, None]] = defaultdict(dict)
    for one in found:
        for name, value in one.items():
            values[name][value] = None
    return {name: list(those) for name, those in values.items()}


def _differing(rows: Mapping[str, _Row]) -> dict[str, list[str]]:
    """Return the differences of rows from the most frequent value; ties go to the first row's value.

    Hparams are compared among rows that have them, if they were set by the user for some row or define the network.
    """
    names = set(_NETWORK).union(*(row.given for row in rows.values()))
    by_row = {
        label: {**row.fields, **{name: value for name, value in row.hparams.items() if name in names}}
        for label, row in rows.items()
    }
    found: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(name for values in by_row.values() for name in values):
        values = {label: of_row[name] for label, of_row in by_row.items() if name in of_row}
        [(usual, _)] = Counter(values.values()).most_common(1)
        for label, value in values.items():
            if value != usual:
                found[label].append(f"{name} {_short(name, value)}, not {_short(name, usual)}")
    return {label: found[label] for label in rows if label in found}


def _short(name: str, value: str) -> str:
    return value[:8] if name == "dataset_fingerprint" and value != UNKNOWN else value


def _deviations(runs: Sequence[CollectedRun]) -> list[str]:
    """Return the deviations of a row on a benchmark from its protocol."""
    found: dict[str, None] = {}
    for run in runs:
        expected = _of_protocol(run.dataset, run.environments, str(run.constant.get("protocol")))
        if expected is not None:
            found |= dict.fromkeys(_deviating(run, *expected))
    return list(found)


@lru_cache(maxsize=1024)
def _of_protocol(
    dataset: str, environments: tuple[str, ...], protocol: str
) -> tuple[Mapping[str, str], Mapping[str, str]] | None:
    """Return the fields and hparams that a protocol sets for a dataset; None if it is unknown."""
    try:
        spec = RunRequest(dataset=dataset, environments=environments, protocol=protocol).resolve()
    except InputError:
        return None
    asked = {name: value for name, value in spec.as_dict().items() if name in FIELDS}
    fields = {name: value for name, value in asked.items() if name not in {"hparams", "protocol", *_OF_THE_ROW}}
    its = get_protocol(protocol)
    if its.default_data_path(spec.facts) == "features":
        fields["data_path"] = "features"  # the pixel cache, in contrast, is part of no protocol
    if not its.fixes_mode:
        del fields["precision"], fields["compile"]
    hparams = its.hparam_defaults(spec.facts)
    return (
        {name: as_text(value) for name, value in {**fields, "seed": DERIVED}.items()},
        {name: as_text(value) for name, value in hparams.items()},
    )


def _deviating(run: CollectedRun, fields: Mapping[str, str], hparams: Mapping[str, str]) -> Iterator[str]:
    found = dict(run.conditions.fields)
    if "compile" in run.constant:
        found["compile"] = as_text(run.constant["compile"])  # the resolved value
    for name, value in fields.items():
        if found[name] not in (value, UNKNOWN):
            yield f"{name} {found[name]}, not {value}"
    for name, given in run.conditions.given.items():
        if name not in hparams:
            yield f"{name} {given}, as given"
        elif given != hparams[name]:
            yield f"{name} {given}, not {hparams[name]}"
