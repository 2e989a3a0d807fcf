"""Reading a sweep back: its runs with their records and states."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from dg_batchformer.declaration import SweepRun, read_declaration
from dg_batchformer.errors import MALFORMED
from dg_batchformer.record import Record
from dg_batchformer.spec import RunSpec
from dg_batchformer.store import RunFolder, State, SweepFolder


@dataclass(frozen=True)
class CollectedRun:
    """A declared run, what became of it, and its records where it was trained to its end.

    Args:
        constant: what every record of the run repeats (hparams, protocol, versions ...); empty if unknown.

    """

    label: str
    spec: RunSpec
    state: State
    records: Sequence[Record]
    constant: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dataset(self) -> str:
        """The dataset's name."""
        return self.spec.dataset

    @property
    def algorithm(self) -> str:
        """The composed name of the algorithm."""
        return self.spec.algorithm

    @property
    def trial_seed(self) -> int:
        """Which repetition it is."""
        return self.spec.trial_seed

    @property
    def hparams_seed(self) -> int:
        """Which draw of hparams it is."""
        return self.spec.hparams_seed


@dataclass(frozen=True)
class Collection:
    """A sweep as found on disk.

    Args:
        rows: labels in table order.
        skipped: lines that could not be read, by file.

    """

    name: str
    rows: Sequence[str]
    runs: Sequence[CollectedRun]
    skipped: Mapping[str, int]


def collect(folder: SweepFolder) -> Collection:
    """Read a sweep; unfinished runs are listed without records, unreadable lines are counted."""
    declared = read_declaration(folder)
    skipped: dict[str, int] = {}
    runs = [_collect_run(folder, run, skipped) for run in declared.runs]
    return Collection(declared.name, declared.rows, runs, skipped)


def _collect_run(folder: SweepFolder, run: SweepRun, skipped: dict[str, int]) -> CollectedRun:
    files = folder.run(run.spec.id)
    state = files.state()
    records = read_records(files, skipped) if state.is_final else []
    return CollectedRun(run.label, run.spec, state, records, _constant(files) if records else {})


def _constant(files: RunFolder) -> dict[str, Any]:
    with files.records_file.open(errors="replace") as file:
        for line in file:
            with suppress(*MALFORMED):
                Record.from_line(line)
                return json.loads(line)
    return {}


def read_records(files: RunFolder, skipped: dict[str, int]) -> list[Record]:
    """Read the records of a run; lines that are none are counted in ``skipped``."""
    records = []
    try:
        lines = files.records_file.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        try:
            records.append(Record.from_line(line))
        except MALFORMED:
            skipped[str(files.records_file)] = skipped.get(str(files.records_file), 0) + 1
    return records
