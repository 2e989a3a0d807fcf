"""The runs of one or several sweeps, as found on disk: the input of tables and reports."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from dg_batchformer.catalog.datasets import DATASETS
from dg_batchformer.results.conditions import Conditions, as_text, conditions
from dg_batchformer.results.evaluations import Evaluations
from dg_batchformer.results.runs import Place, RecordsFile, RunRecords
from dg_batchformer.results.winners import Winner
from dg_batchformer.spec.race import Race
from dg_batchformer.storage.cost import Cost
from dg_batchformer.storage.folders import RunFolder, State
from dg_batchformer.text.counts import listed


class Ending(NamedTuple):
    """How a run ended.

    Args:
        seconds: of training and evaluation; None if the run did not record it.
        failure: the error message of a failed run, else ''.
        seconds_alone: those that the run would have needed alone, if it shared its training; else None.
        seconds_spared: estimate of those that it would have needed to its end, if a race stopped it; else None.

    """

    seconds: float | None = None
    failure: str = ""
    seconds_alone: float | None = None
    seconds_spared: float | None = None

    @classmethod
    def of(cls, folder: RunFolder) -> "Ending":
        """Read it from a run folder."""
        ended = folder.outraced_state() if folder.state() is State.OUTRACED else folder.final_state()
        return cls(ended.seconds, folder.failure(), ended.seconds_alone, ended.seconds_spared)


class Candidate(NamedTuple):
    """Hparams among which model selection chooses: a random draw, or a grid point.

    Args:
        seed: the hparams seed.
        point: the grid point as text, '' without a grid.

    """

    seed: int
    point: str = ""


DEFAULTS = Candidate(0)


def point_text(point: Mapping[str, Any]) -> str:
    """Return a grid point as text, such as ``lr 1e-05, bf_dropout 0.1``."""
    return ", ".join(f"{name} {as_text(value)}" for name, value in point.items())


def most_draws(runs: Iterable["CollectedRun"]) -> int:
    """Return the maximal number of draws and grid points per row, dataset, test environments and trial."""
    tried: dict[tuple[object, ...], set[Candidate]] = {}
    for run in runs:
        tried.setdefault((run.benchmark, run.label, run.test_envs, run.trial_seed), set()).add(run.candidate)
    return max(map(len, tried.values()), default=0)


def cost_of(runs: Iterable["CollectedRun"]) -> Cost:
    """Return the device time of the runs that have ended; a run that two rows share counts once."""
    return Cost.of({run.path: run.ending for run in runs if run.state.has_ended}.values())


def costs_of_rows(runs: Iterable["CollectedRun"]) -> dict[str, Cost]:
    """Return the device time of the runs of every row that have ended, if it has any."""
    by_row: dict[str, list[CollectedRun]] = {}
    for run in runs:
        if run.state.has_ended:
            by_row.setdefault(run.label, []).append(run)
    return {label: Cost.of(run.ending for run in of_row) for label, of_row in by_row.items()}


@dataclass(frozen=True)
class CollectedRun:
    """A run of a sweep with its row, its state, and its records if tables include it.

    Args:
        records: empty unless tables include the run.
        path: its folder.
        environments: names of the environments of a custom dataset; () for a dataset in the catalog, or if unknown.
        train_envs: its training environments, if its sweep is defined by ``train_envs``, else ().
        known_ending: how it ended, if that is known without reading its folder.
        imbalance: its imbalance, '' for none.
        point: its grid point, or what a search chose: values by hparam; {} without either.
        searches: whether it is a run of a search, not of its winner.
        winner: the choice of a search that it repeats, if any.
        race: the race that it is in, if any.

    """

    label: str
    dataset: str
    algorithm: str
    test_envs: tuple[int, ...]
    trial_seed: int
    hparams_seed: int
    state: State
    records: RunRecords = field(default_factory=RunRecords)
    path: Path = Path()
    environments: tuple[str, ...] = ()
    train_envs: tuple[int, ...] = ()
    known_ending: Ending | None = None
    imbalance: str = ""
    point: Mapping[str, Any] = field(default_factory=dict)
    searches: bool = False
    winner: Winner | None = None
    race: Race | None = None

    @cached_property
    def candidate(self) -> Candidate:
        """The candidate of model selection that it trains."""
        return Candidate(self.hparams_seed, point_text(self.point))

    @cached_property
    def ending(self) -> Ending:
        """How it ended, read on first use."""
        return self.known_ending or Ending.of(RunFolder(self.path))

    @property
    def evaluations(self) -> Evaluations:
        """The measurements; empty unless tables include the run."""
        return self.records.evaluations

    @property
    def constant(self) -> Mapping[str, Any]:
        """Values that all records repeat: args, hparams, protocol, versions ...; {} without records."""
        return self.records.constant

    @property
    def counts(self) -> bool:
        """Whether tables include the run: it is finished, or unfinished runs were requested."""
        return self.state.is_final or len(self.evaluations) > 0

    @property
    def benchmark(self) -> str:
        """The unit with its own table: the dataset, with training environments and imbalance if there are any."""
        thinned = f", {self.imbalance}" if self.imbalance else ""
        if not self.train_envs:
            return f"{self.dataset}{thinned}"
        names = _environments(self)
        return f"{self.dataset} from {' + '.join(names[env] for env in self.train_envs)}{thinned}"

    @cached_property
    def conditions(self) -> Conditions:
        """The conditions under which it was trained."""
        place = Place(self.dataset, self.algorithm, self.test_envs, self.trial_seed, self.hparams_seed)
        return conditions(self.constant, place, self.point)

    @property
    def reported(self) -> tuple[int, ...]:
        """The environments for which this run alone gives the result of its row."""
        return self.test_envs if self.train_envs or len(self.test_envs) == 1 else ()

    def validating(self, env: int) -> Sequence[int]:
        """Return the environments whose held-out splits are the validation set for a test environment."""
        return self.train_envs or [other for other in range(self.evaluations.num_environments) if other != env]


@dataclass(frozen=True)
class Collection:
    """The runs of one or several sweeps.

    Args:
        rows: labels in table order.
        commands: that train the missing runs.
        skipped: notes on files that could not be read, or were skipped.
        unfinished: end of the note on unfinished runs, after their number.
        searched: runs of searches, if ``runs`` are those of their winners: tables count their price only.

    """

    name: str
    rows: Sequence[str]
    runs: Sequence[CollectedRun]
    commands: Sequence[str] = ()
    skipped: Sequence[str] = ()
    unfinished: str = ""
    searched: Sequence[CollectedRun] = ()

    @property
    def runs_and_searches(self) -> Sequence[CollectedRun]:
        """All runs, including those of searches."""
        return [*self.runs, *self.searched]

    @cached_property
    def environments(self) -> Mapping[str, Sequence[str]]:
        """Names of environments by benchmark: known datasets in table order, then others as found."""
        runs: dict[str, CollectedRun] = {}
        for run in self.runs:
            if run.benchmark not in runs or not runs[run.benchmark].constant:
                runs[run.benchmark] = run
        order = {name: place for place, name in enumerate(DATASETS)}
        ordered = sorted(runs, key=lambda name: order.get(runs[name].dataset, len(order)))
        return {name: _environments(runs[name]) for name in ordered}

    @cached_property
    def datasets(self) -> Mapping[str, str]:
        """The dataset of every benchmark, without its setting."""
        return {run.benchmark: run.dataset for run in self.runs}


def _environments(run: CollectedRun) -> Sequence[str]:
    if run.dataset in DATASETS and run.evaluations.num_environments <= len(DATASETS[run.dataset].names):
        return DATASETS[run.dataset].names  # a fork of DomainBed may have more
    if run.environments:
        return run.environments
    named = run.constant.get("environments")
    if isinstance(named, list) and named:
        return [str(name) for name in named]
    return [f"env{env}" for env in range(max(run.evaluations.num_environments, max(run.test_envs) + 1))]


def unreadable_lines(folder: Path, files: Mapping[str, RecordsFile]) -> list[str]:
    """Return a note on the number of unreadable lines, and their files."""
    torn = {f"{folder / name / 'results.jsonl'}": file.unreadable for name, file in files.items() if file.unreadable}
    return [f"{sum(torn.values())} unreadable lines skipped, of {listed(list(torn))}"] if torn else []


def damaged_records(folder: Path, files: Mapping[str, RecordsFile]) -> list[str]:
    """Return a note on records files that changed since their runs finished."""
    found = [f"{folder / name / 'results.jsonl'}" for name, file in files.items() if file.intact is False]
    return [f"changed since the run finished, but included, as in DomainBed: {listed(found)}"] if found else []
