"""SweepSpec: a set of runs, as a sweep file asks for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dg_batchformer.catalog.datasets import DatasetFacts, dataset_facts
from dg_batchformer.spec.environments import environment_indices
from dg_batchformer.spec.protocols import DEFAULT_PROTOCOL
from dg_batchformer.spec.race import Race
from dg_batchformer.spec.search import Search

MOST_RUNS = 200_000


@dataclass(frozen=True)
class Row:
    """A row of the tables: an algorithm with its hparams, and the values that its grid lists."""

    label: str
    algorithm: str
    hparams: Mapping[str, Any] = field(default_factory=dict)
    line: int = 0  # in the sweep file
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class SweepSpec:
    """The content of a sweep file; the fields are its keys.

    Args:
        name: stem of the file name, and folder in ``results/``.
        datasets: names in ``catalog.datasets.DATASETS``, or custom datasets.
        algorithms: the rows, in table order.
        protocol: a name in ``spec.protocols.PROTOCOLS``.
        trials: number of trial seeds, from 0; or a list of seeds.
        draws: number of hparams seeds, from 0; 1 runs only the defaults.
        test_envs: environments to hold out, one run each; None holds out each in turn.
        train_envs: environments to train on, one run per item, tested on all ``test_envs`` that it does not train on;
            ``all`` trains on each environment alone. None trains on all that are not held out.
        imbalance: settings of ``spec/imbalance.py``, one run each; () uses all training images.
        pairs: also hold out every pair, as leave-one-domain-out selection requires.
        grid: lists of values by hparam, for every row; a run for each combination, in place of random draws.
        search: a search for hparams, whose winners are trained on further trials; see ``spec/search.py``.
        hparams_from: folder of another sweep, which chooses the hparams of every row and test environment.
        race: stops draws and grid points that validate worse than others; see ``spec/race.py``.
        share: train runs together that differ only in how they average weights.
        hparams, steps, checkpoint_freq, holdout_fraction, evaluate, precision, data_path, compile, plugins: for every
            run, as in RunSpec; but by default, sweeps use the fast modes and the protocol's data path.
        expected: published averages in percent by dataset and label, with their source, see ``spec/expected.py``.
        environments: of custom datasets, by dataset; not a key of the file, but read from the data.
        question: the comment at the top of the file.

    """

    name: str
    datasets: tuple[str, ...]
    algorithms: tuple[Row, ...]
    protocol: str = DEFAULT_PROTOCOL
    trials: int | tuple[int, ...] = 3
    draws: int = 1
    test_envs: tuple[str, ...] | None = None
    train_envs: tuple[tuple[str, ...], ...] | Literal["all"] | None = None
    imbalance: tuple[str, ...] = ()
    pairs: bool = False
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    search: Search | None = None
    hparams_from: str | None = None
    race: Race | None = None
    share: bool = True
    hparams: Mapping[str, Any] = field(default_factory=dict)
    steps: int | None = None
    checkpoint_freq: int | None = None
    holdout_fraction: float = 0.2
    evaluate: str = "needed"
    precision: str = "auto"
    data_path: str | None = None
    compile: str = "auto"
    plugins: tuple[str, ...] = ()
    expected: Mapping[str, Any] = field(default_factory=dict)
    environments: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    question: str = ""

    @property
    def trial_seeds(self) -> Sequence[int]:
        """Trial seeds, in order; of a search, those that it tries hparams on."""
        if self.search is not None:
            return self.search.on
        return range(self.trials) if isinstance(self.trials, int) else self.trials

    @property
    def num_draws(self) -> int:
        """Number of hparams seeds of every trial."""
        return self.draws if self.search is None else self.search.draws

    def grid_of(self, row: Row) -> dict[str, Sequence[Any]]:
        """Return the grid of a row: the sweep's lists, except for hparams that the row itself sets or lists."""
        return {**{name: values for name, values in self.grid.items() if name not in row.hparams}, **row.grid}

    def facts(self, dataset: str) -> DatasetFacts:
        """Return the facts of one of the sweep's datasets."""
        return dataset_facts(dataset, self.environments.get(dataset, ()))

    def training_sets(self, dataset: str) -> list[tuple[int, ...]]:
        """Return the training environments of each run as indices; [] without ``train_envs``."""
        facts = self.facts(dataset)
        if self.train_envs == "all":
            return [(env,) for env in range(len(facts.names))]
        return [environment_indices(facts, envs) for envs in self.train_envs or ()]

    def tested(self, dataset: str) -> list[int]:
        """Return the sorted indices of test environments."""
        facts = self.facts(dataset)
        return list(environment_indices(facts, self.test_envs or range(len(facts.names))))
