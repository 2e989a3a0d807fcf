"""What a ``results.jsonl`` says, whoever wrote it, DomainBed or we."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from dg_batchformer.errors import MALFORMED
from dg_batchformer.results.evaluations import Evaluations, concatenate
from dg_batchformer.storage.records import read_lines
from dg_batchformer.text.printable import one_line


@dataclass(frozen=True)
class TrainedRun:
    """What the records of one run say.

    Args:
        constant: what the first of them says besides measurements: args, hparams, protocol, versions ...

    """

    constant: Mapping[str, Any]
    evaluations: Evaluations

    @property
    def args(self) -> Mapping[str, Any]:
        """What was asked, under DomainBed's keys."""
        return self.constant["args"]

    @cached_property
    def place(self) -> "Place":
        """Where the run stands in a sweep; raises ValueError where its args do not say that."""
        dataset, algorithm, envs = (self.args.get(name) for name in ("dataset", "algorithm", "test_envs"))
        seeds = self.args.get("trial_seed", 0), self.args.get("hparams_seed", 0)  # the oldest records have none
        if not (isinstance(dataset, str) and isinstance(algorithm, str) and isinstance(envs, list) and envs):
            raise ValueError("args without dataset, algorithm or test_envs")
        if len(set(map(str, envs))) < len(envs):
            raise ValueError("test_envs of args name an environment twice")
        if not all(type(number) is int and number >= 0 for number in (*envs, *seeds)):
            raise ValueError("test_envs and seeds of args are whole numbers")
        return Place(one_line(dataset), one_line(algorithm), tuple(sorted(envs)), *seeds)


class Place(NamedTuple):
    """Where a run stands in a sweep."""

    dataset: str
    algorithm: str
    test_envs: tuple[int, ...]
    trial_seed: int
    hparams_seed: int


@dataclass(frozen=True)
class RecordsFile:
    """A file of records: its runs, one unless two were trained in a folder, and how many lines are none.

    Args:
        is_plain: whether it is known to be JSON as the standard has it, without DomainBed's bare NaN.
        intact: whether it is what its run wrote, by the digest in ``done``; None where there is no digest.

    """

    runs: Sequence[TrainedRun]
    unreadable: int = 0
    is_plain: bool = True
    intact: bool | None = None


def parse_records(content: bytes) -> RecordsFile:
    """Read the content of a ``results.jsonl``; neighbours with equal args are of one run."""
    records, unreadable, is_plain = read_lines(content)
    runs = []
    for _, group in groupby(records, key=itemgetter("args")):
        of_run = list(group)
        try:
            runs.append(_trained(of_run))
        except MALFORMED:
            unreadable += len(of_run)
    return RecordsFile(runs, unreadable, is_plain)


def _trained(records: Sequence[dict[str, Any]]) -> TrainedRun:
    evaluations = Evaluations.of(records)
    measured = {*evaluations.keys, "step", "final"}
    return TrainedRun({key: value for key, value in records[0].items() if key not in measured}, evaluations)


def whole_runs(runs: Sequence[TrainedRun]) -> Iterator[TrainedRun]:
    """Join the two parts of DomainBed's auto-lr training, neighbours whose args differ in holdout_fraction alone."""
    for _, parts in groupby(runs, key=_args_of_parts):
        joined = list(parts)
        yield TrainedRun(joined[0].constant, concatenate([part.evaluations for part in joined]))


def _args_of_parts(run: TrainedRun) -> dict[str, Any]:
    return {name: value for name, value in run.args.items() if name != "holdout_fraction"}
