"""Parse ``results.jsonl``, ours or DomainBed's, into runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from dg_batchformer.errors import MALFORMED
from dg_batchformer.results.evaluations import Evaluations, concatenate
from dg_batchformer.storage.records import read_lines
from dg_batchformer.text.printable import one_line


@dataclass(frozen=True)
class RunRecords:
    """The records of one run.

    Args:
        constant: values of the first record that are not measurements: args, hparams, protocol, versions ...; {}
            without records.
        evaluations: the measurements.

    """

    constant: Mapping[str, Any] = field(default_factory=dict)
    evaluations: Evaluations = field(default_factory=lambda: Evaluations.of([]))

    @property
    def args(self) -> Mapping[str, Any]:
        """The arguments of the run, under DomainBed's keys."""
        return self.constant["args"]

    @cached_property
    def place(self) -> "Place":
        """Position of the run in a sweep; raises ValueError if its args do not define it."""
        dataset, algorithm, envs = (self.args.get(name) for name in ("dataset", "algorithm", "test_envs"))
        trial_seed = self.args.get("trial_seed", 0)  # the oldest records have no seeds
        hparams_seed = self.args.get("hparams_seed", 0)
        if not (isinstance(dataset, str) and isinstance(algorithm, str) and isinstance(envs, list) and envs):
            raise ValueError("args without dataset, algorithm or test_envs")
        if len(set(map(str, envs))) < len(envs):
            raise ValueError("test_envs of args has a duplicate")
        if not all(type(number) is int and number >= 0 for number in (*envs, trial_seed, hparams_seed)):
            raise ValueError("test_envs and seeds of args must be non-negative integers")
        return Place(one_line(dataset), one_line(algorithm), tuple(sorted(envs)), trial_seed, hparams_seed)


class Place(NamedTuple):
    """Position of a run in a sweep."""

    dataset: str
    algorithm: str
    test_envs: tuple[int, ...]
    trial_seed: int
    hparams_seed: int


@dataclass(frozen=True)
class RecordsFile:
    """A parsed records file: its runs (several if they shared a folder), and the number of unreadable lines.

    Args:
        is_plain: whether it is known to be strict JSON, without DomainBed's bare NaN.
        intact: whether it matches the digest in ``done``; None without a digest.

    """

    runs: Sequence[RunRecords]
    unreadable: int = 0
    is_plain: bool = True
    intact: bool | None = None


def parse_records(content: bytes) -> RecordsFile:
    """Parse the content of a ``results.jsonl``; consecutive records with equal args belong to one run."""
    records, unreadable, is_plain = read_lines(content)
    runs = []
    for _, group in groupby(records, key=itemgetter("args")):
        of_run = list(group)
        try:
            runs.append(_trained(of_run))
        except MALFORMED:
            unreadable += len(of_run)
    return RecordsFile(runs, unreadable, is_plain)


def _trained(records: Sequence[dict[str, Any]]) -> RunRecords:
    evaluations = Evaluations.of(records)
    measured = {*evaluations.keys, "step", "final"}
    return RunRecords({key: value for key, value in records[0].items() if key not in measured}, evaluations)


def whole_runs(runs: Sequence[RunRecords]) -> Iterator[RunRecords]:
    """Join the two stages of DomainBed's auto-lr training: neighbors whose args differ only in holdout_fraction."""
    for _, parts in groupby(runs, key=_args_of_parts):
        joined = list(parts)
        yield RunRecords(joined[0].constant, concatenate([part.evaluations for part in joined]))


def _args_of_parts(run: RunRecords) -> dict[str, Any]:
    return {name: value for name, value in run.args.items() if name != "holdout_fraction"}
