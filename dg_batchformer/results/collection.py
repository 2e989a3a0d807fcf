"""A sweep, or several, as found on disk: what tables and reports are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from dg_batchformer.catalog.datasets import DATASETS
from dg_batchformer.results.conditions import Conditions, conditions
from dg_batchformer.results.evaluations import Evaluations
from dg_batchformer.results.runs import Place, RecordsFile
from dg_batchformer.storage.folders import State


@dataclass(frozen=True)
class CollectedRun:
    """A run, what became of it, and what was measured where tables count it.

    Args:
        evaluations: empty unless the run counts.
        constant: what every record of it repeats: args, hparams, protocol, versions ...; {} without records.
        path: its folder.
        environments: of data of one's own, by name; () for a dataset of the catalog, and where nobody says.
        train_envs: what it trained on, where its sweep is about that; () where it is about what is held out.

    """

    label: str
    dataset: str
    algorithm: str
    test_envs: tuple[int, ...]
    trial_seed: int
    hparams_seed: int
    state: State
    evaluations: Evaluations = field(default_factory=lambda: Evaluations.of([]))
    constant: Mapping[str, Any] = field(default_factory=dict)
    path: Path = Path()
    environments: tuple[str, ...] = ()
    train_envs: tuple[int, ...] = ()

    @property
    def counts(self) -> bool:
        """Whether tables count the run: it was trained to its end, or unfinished runs were asked for."""
        return self.state.is_final or len(self.evaluations) > 0

    @property
    def benchmark(self) -> str:
        """What has a table of its own: the dataset, or what is dataset and the environments trained on."""
        if not self.train_envs:
            return self.dataset
        names = _environments(self)
        return f"{self.dataset} from {' + '.join(names[env] for env in self.train_envs)}"

    @cached_property
    def conditions(self) -> Conditions:
        """Under which conditions it was trained."""
        place = Place(self.dataset, self.algorithm, self.test_envs, self.trial_seed, self.hparams_seed)
        return conditions(self.constant, place)

    @property
    def reported(self) -> tuple[int, ...]:
        """The environments on which this run alone says how well its row does."""
        return self.test_envs if self.train_envs or len(self.test_envs) == 1 else ()

    def validating(self, env: int) -> Sequence[int]:
        """Return the environments whose held-out splits validate the run when it is tested on one."""
        return self.train_envs or [other for other in range(self.evaluations.num_environments) if other != env]


@dataclass(frozen=True)
class Collection:
    """One sweep or several, as found on disk.

    Args:
        rows: labels in table order.
        commands: what trains the runs that are missing.
        skipped: sentences on what could not be read, or was left out.
        unfinished: what a sentence says of runs that are not trained to their end, after their number.

    """

    name: str
    rows: Sequence[str]
    runs: Sequence[CollectedRun]
    commands: Sequence[str] = ()
    skipped: Sequence[str] = ()
    unfinished: str = ""

    @cached_property
    def environments(self) -> Mapping[str, Sequence[str]]:
        """The names of environments by benchmark: known datasets in the order of tables, then others as they come."""
        runs: dict[str, CollectedRun] = {}
        for run in self.runs:
            if run.benchmark not in runs or not runs[run.benchmark].constant:
                runs[run.benchmark] = run
        order = {name: place for place, name in enumerate(DATASETS)}
        ordered = sorted(runs, key=lambda name: order.get(runs[name].dataset, len(order)))
        return {name: _environments(runs[name]) for name in ordered}


def _environments(run: CollectedRun) -> Sequence[str]:
    if run.dataset in DATASETS and run.evaluations.num_environments <= len(DATASETS[run.dataset].names):
        return DATASETS[run.dataset].names  # a fork's dataset of that name may have more
    if run.environments:
        return run.environments
    named = run.constant.get("environments")
    if isinstance(named, list) and named:
        return [str(name) for name in named]
    return [f"env{env}" for env in range(max(run.evaluations.num_environments, max(run.test_envs) + 1))]


def unreadable_lines(folder: Path, files: Mapping[str, RecordsFile]) -> list[str]:
    """Say how many lines of which files are no records, by the names of their runs below a folder."""
    torn = {f"{folder / name / 'results.jsonl'}": file.unreadable for name, file in files.items() if file.unreadable}
    return [f"{sum(torn.values())} unreadable lines skipped, of {listed(list(torn))}"] if torn else []


def damaged_records(folder: Path, files: Mapping[str, RecordsFile]) -> list[str]:
    """Say which files of records differ from what their runs wrote, by the names of the runs below a folder."""
    found = [f"{folder / name / 'results.jsonl'}" for name, file in files.items() if file.intact is False]
    return [f"damaged after the end of the run, but counted as DomainBed does: {listed(found)}"] if found else []


def how_many(number: int, noun: str) -> str:
    """Return a number of things."""
    return f"{number} {noun}{'s' * (number != 1)}"


def listed(names: Sequence[str], most: int = 5) -> str:
    """Return names in a line, the first of many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
