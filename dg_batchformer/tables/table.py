"""Build tables: for every selection method, one per dataset and one of averages over datasets."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite, isnan, nan
from statistics import fmean, pstdev

from dg_batchformer.hparams import NOTHING, WHOLE
from dg_batchformer.results.collection import CollectedRun, Collection
from dg_batchformer.results.metrics import ACCURACY, Measurements, Metric
from dg_batchformer.results.provenance import Provenance, provenance
from dg_batchformer.results.row_conditions import RowConditions, by_benchmark, joined
from dg_batchformer.results.scores import Choice, Key, Scores, measured_choices, whole_trials
from dg_batchformer.results.selection import METHODS, Method, Score, Selection
from dg_batchformer.storage.folders import State
from dg_batchformer.tables.edges import about_edges
from dg_batchformer.tables.missing_runs import Lacks, lack
from dg_batchformer.tables.races import about_races
from dg_batchformer.tables.searches import about_searches
from dg_batchformer.text.counts import listed

_AVERAGE = "Average"


@dataclass(frozen=True)
class Cell:
    """A mean over n trials in percent, by default of accuracies, with its standard error; None if empty.

    The mean is NaN if the recorded accuracy of a trial is NaN.

    The error is DomainBed's: population standard deviation divided by the square root of n. It is None for one trial,
    and for a mean over datasets, whose n is 0.
    """

    mean: float | None = None
    error: float | None = None
    n: int = 0

    @classmethod
    def of(cls, values: Sequence[float]) -> "Cell":
        """Build a cell from values in [0, 1], one per trial; an empty cell from none."""
        if not values:
            return cls()
        finite = all(map(isfinite, values))  # the statistics module rejects NaN of diverged runs
        mean = fmean(values) if finite else sum(values) / len(values)
        if len(values) == 1:
            return cls(100 * mean, None, 1)
        deviation = pstdev(values) if finite else nan
        return cls(100 * mean, 100 * deviation / len(values) ** 0.5, len(values))


@dataclass(frozen=True)
class PublishedRow:
    """A published row, which is separate from our rows and excluded from marks and tests.

    Args:
        label: with the source. key: of its BibTeX entry. source: citation and location.
        cells: one per column; empty if nothing is published.

    """

    label: str
    algorithm: str
    key: str
    source: str
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Draw:
    """The selected hparams draw of a row for a test environment and trial.

    Args:
        draw: hparams seed; 0 for the defaults, and for grid points.
        hparams: those that differ between draws, as text.
        kind: ``draw``, ``grid point`` or ``winner`` (of a search).

    """

    label: str
    environment: str
    trial: int
    draw: int
    step: int
    hparams: Mapping[str, str]
    kind: str = "draw"


@dataclass(frozen=True)
class Table:
    """A table with rows by label, and columns by environment or dataset, followed by summary columns.

    Args:
        best, second: (row, column) of the best and second best mean of every column.
        differing: "above" or "below" by (row, column), for means that differ significantly from a baseline row.
        notes: on missing runs and on summary columns.
        published: published rows, below ours.
        conditions: differences between rows, and deviations from their protocols.
        provenance: of the numbers; None if there are none.
        benchmarks: datasets that the numbers are from.
        metric: of the numbers.
        draws: selected draws, if requested.

    """

    title: str
    corner: str
    columns: Sequence[str]
    rows: Mapping[str, Sequence[Cell]]
    trials: int
    notes: Sequence[str] = ()
    best: frozenset[tuple[str, int]] = frozenset()
    second: frozenset[tuple[str, int]] = frozenset()
    differing: Mapping[tuple[str, int], str] = field(default_factory=dict)
    published: Sequence[PublishedRow] = ()
    conditions: RowConditions = field(default_factory=RowConditions)
    provenance: Provenance | None = None
    benchmarks: Sequence[str] = ()
    metric: Metric = ACCURACY
    draws: Sequence[Draw] = ()

    @property
    def average(self) -> int:
        """Index of the column of averages; -1 if it is not shown."""
        # an environment may have this name too
        return max((place for place, name in enumerate(self.columns) if name == _AVERAGE), default=-1)

    @property
    def has_empty_cells(self) -> bool:
        """Whether any cell is empty."""
        return any(cell.mean is None for row in self.rows.values() for cell in row)


@dataclass(frozen=True)
class Section:
    """All tables of one selection method.

    Args:
        notes: on datasets without a table, and the definition of the metric; or why there are no tables.
        choices: the selected runs, with their scores.

    """

    method: Selection
    tables: Sequence[Table]
    notes: Sequence[str]
    metric: Metric = ACCURACY
    choices: Mapping[Key, Choice] = field(default_factory=dict)

    @property
    def scores(self) -> Scores:
        """The scores of the selected runs."""
        return {key: choice.score for key, choice in self.choices.items()}


def build_sections(collection: Collection, methods: Sequence[str], metric: Metric = ACCURACY) -> list[Section]:
    """Build the tables of a sweep for the given selection methods."""
    measurements, said = Measurements(metric), by_benchmark(collection.runs, collection.rows)
    sections = [_section(collection, METHODS[name], measurements) for name in methods]
    return [replace(section, tables=[_told(table, said) for table in section.tables]) for section in sections]


def _told(table: Table, said: Mapping[str, RowConditions]) -> Table:
    """Add notes on differences between rows, and deviations from protocols, to a table."""
    conditions = joined(said, table.benchmarks)
    return replace(table, conditions=conditions, notes=[*table.notes, *conditions.notes])


def _section(collection: Collection, method: Method, measurements: Measurements) -> Section:
    datasets = list(collection.environments)
    paired = {run.benchmark for run in collection.runs if len(run.test_envs) == 2 and not run.train_envs}
    shown = [name for name in datasets if name in paired or not method.needs_pairs]
    by_train_envs = {run.benchmark for run in collection.runs if run.train_envs}
    reasons: dict[str, list[str]] = {}
    for name in datasets:
        if name not in shown:
            reasons.setdefault(_NO_PAIRS[name in by_train_envs], []).append(name)
    alone = "" if shown or len(reasons) > 1 else next(iter(reasons), "")
    notes = [alone] if alone else [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()]
    metric = measurements.metric
    if not shown:
        return Section(method, [], notes, metric)
    choices = measured_choices(collection, method, measurements)
    if metric is ACCURACY and not choices and any(run.counts for run in collection.runs):
        return Section(method, [], notes or ["no run recorded the values that this selection needs"])
    tables = [_dataset_table(collection, method, dataset, choices, measurements) for dataset in shown]
    if len(shown) > 1:
        tables.append(_averages_table(collection, method, shown, choices, metric))
    return Section(method, tables, [*notes, *_about_metric(metric)], metric, choices)


_NO_PAIRS = (
    "this selection needs runs that hold out two environments: 'pairs: true' in a sweep file; in DomainBed, a sweep "
    "without --single_test_envs",
    "this selection needs runs that hold out two environments; not available for sweeps with train_envs",
)


def _about_metric(metric: Metric) -> list[str]:
    if metric is ACCURACY:
        return []
    title = f"{metric.title[0].upper()}{metric.title[1:]}"
    final = "measured on the final model of the selected draw, regardless of the selected step"
    where = {
        (True, True): f"It is recorded at the selected step for runs with an imbalance; otherwise, it is {final}",
        (True, False): "It is recorded at the selected step",
        (False, True): f"It is {final}",
    }
    return [f"{title}: {metric.about}", where[bool(metric.keys), metric.measure is not None]]


def _dataset_table(
    collection: Collection, method: Method, dataset: str, choices: Mapping[Key, Choice], measurements: Measurements
) -> Table:
    names = collection.environments[dataset]
    runs = [run for run in collection.runs if run.benchmark == dataset]
    envs, trials = _declared(runs)
    rows, lacks = {}, Lacks(collection.rows, [names[env] for env in envs])
    for label in collection.rows:
        chosen = {env: _by_trial(choices, dataset, label, env, trials) for env in envs}
        by_env = {env: _scores(of_env) for env, of_env in chosen.items()}
        cells = [Cell.of([score.test for score in by_env[env].values()]) for env in envs]
        for env, cell in zip(envs, cells, strict=True):
            lacks.add(label, names[env], _not_finite(chosen[env].values(), "test"))
            read = [run for run in runs if run.label == label and _reads(method, run, env)]
            unmeasured = [run for run in read if run.state is State.DONE and not measurements.has(run, env)]
            lacks.add(label, names[env], lack(read, cell.n, trials, len(unmeasured), measurements.metric.needs))
        every = [choice for of_env in chosen.values() for choice in of_env.values()]
        lacks.add(label, _SUMMARIES[-1], _not_finite(every, "in_domain"))
        rows[label] = [*cells, *_summaries(by_env, measurements.metric)]
    columns = [*(names[env] for env in envs), *_SUMMARIES]
    few = any(cell.n < len(trials) for row in rows.values() for cell in row[len(envs) :])
    notes = [
        *lacks.sentences(),
        *about_searches(runs, method),
        *about_races([run for run in collection.runs_and_searches if run.benchmark == dataset]),
        *about_edges(runs, choices),
        *_about_summaries(few, len(envs), len(names) - len(runs[0].train_envs)),
    ]
    notes += [*_about_lone_environments(runs), *_about_frozen_parts(runs), *_about_frozen(runs)]
    notes += _about_shots(runs, measurements.metric)
    made = _provenance(runs, method)
    notes += [made.differing_threads] if made is not None and made.differing_threads else []
    table = Table(dataset, "test environment", columns, rows, len(trials), notes, provenance=made)
    return marked(replace(table, metric=measurements.metric, benchmarks=[dataset]))


_SUMMARIES = (_AVERAGE, "Worst", "In-domain")


def _about_summaries(few: bool, shown: int, known: int) -> list[str]:
    """Return notes on the summary columns; ``few`` means that some trials are incomplete."""
    notes = []
    if shown < known:
        notes.append(f"Average, Worst: over the {shown} of {known} environments that are held out")
    if few:
        notes.append(f"{', '.join(_SUMMARIES)}: over the trials that have all environments")
    return [*notes, "In-domain: the same models on the held-out splits of their training environments"]


def _about_lone_environments(runs: Sequence[CollectedRun]) -> list[str]:
    """Return a note on rows that compare training environments but had only one."""
    labels = dict.fromkeys(run.label for run in runs if run.constant.get("lone_environment") is not None)
    return [f"{', '.join(labels)}: much like ERM, as there is only one training environment"] if labels else []


def _about_frozen_parts(runs: Sequence[CollectedRun]) -> list[str]:
    """Return notes on the part of the network that was frozen, for every such part."""
    rows: dict[str, dict[str, None]] = defaultdict(dict)
    for run in runs:
        rows[run.conditions.hparams.get("freeze", NOTHING)][run.label] = None
    every = {run.label for run in runs}
    return [
        f"{'all rows' if labels.keys() == every else ', '.join(labels)}: the featurizer was frozen"
        + (f" up to and including {upto}" if upto != WHOLE else "")
        for upto, labels in rows.items()
        if upto != NOTHING
    ]


def _about_frozen(runs: Sequence[CollectedRun]) -> list[str]:
    """Return a note on rows whose terms train the featurizer only, which was frozen."""
    labels = dict.fromkeys(run.label for run in runs if run.constant.get("has_nothing_to_shape") is True)
    why = "their other loss terms only train the featurizer, which is frozen"
    return [f"{', '.join(labels)}: equivalent to ERM with a different seed, as {why}"] if labels else []


def _about_shots(runs: Sequence[CollectedRun], metric: Metric) -> list[str]:
    """Return the thresholds of many-shot and few-shot classes, for metrics that use them."""
    if not any(key.startswith(("many", "medium", "few")) for key in metric.keys):
        return []
    said = [run.constant["shots"]["thresholds"] for run in runs if "shots" in run.constant]
    thresholds = dict.fromkeys((shots["many"], shots["few"]) for shots in said)
    return [
        f"Many-shot classes have more than {many} training images on average over training environments, few-shot "
        f"classes fewer than {few}"
        for many, few in thresholds
    ]


def _declared(runs: Sequence[CollectedRun]) -> tuple[list[int], list[int]]:
    """Return the environments with a column, and the trial seeds."""
    envs = {env for run in runs for env in run.reported}
    return sorted(envs), sorted({run.trial_seed for run in runs})


def _by_trial(
    choices: Mapping[Key, Choice], dataset: str, label: str, env: int, trials: Sequence[int]
) -> dict[int, Choice]:
    return {trial: choice for trial in trials if (choice := choices.get((dataset, label, env, trial)))}


def _scores(choices: Mapping[int, Choice]) -> dict[int, Score]:
    return {trial: choice.score for trial, choice in choices.items()}


def _not_finite(choices: Iterable[Choice], name: str) -> str:
    """Return a note on runs whose recorded accuracy is not finite, which shows as nan; '' if there are none."""
    values = [(choice.run, getattr(choice.score, name)) for choice in choices]
    runs = dict.fromkeys(str(run.path) for run, value in values if value is not None and not isfinite(value))
    return f"nan: an accuracy in results.jsonl of {listed(list(runs))} is not finite" if runs else ""


def _summaries(by_env: Mapping[int, Mapping[int, Score]], metric: Metric) -> tuple[Cell, Cell, Cell]:
    """Summarize average, worst and in-domain values over the trials that have all environments."""
    found = [list(trial.values()) for trial in whole_trials(by_env).values()]
    in_domain = [[score.in_domain for score in trial if score.in_domain is not None] for trial in found]
    return (
        Cell.of([fmean(score.test for score in trial) for trial in found]),
        Cell.of([metric.worst([score.test for score in trial]) for trial in found]),
        Cell.of([fmean(values) for values in in_domain if len(values) == len(by_env)]),
    )


def _averages_table(
    collection: Collection, method: Method, datasets: Sequence[str], choices: Mapping[Key, Choice], metric: Metric
) -> Table:
    declared = {name: _declared([run for run in collection.runs if run.benchmark == name]) for name in datasets}
    rows, lacks = {}, Lacks(collection.rows, datasets)
    for label in collection.rows:
        cells = []
        for dataset, (envs, trials) in declared.items():
            by_env = {env: _scores(_by_trial(choices, dataset, label, env, trials)) for env in envs}
            average, *_ = _summaries(by_env, metric)
            few = f"{average.n} of {len(trials)} trials have all environments"
            lacks.add(label, dataset, few if average.n < len(trials) else "")
            cells.append(average)
        means = [cell.mean for cell in cells if cell.mean is not None]
        rows[label] = [*cells, Cell(fmean(means)) if len(means) == len(cells) else Cell()]
    most = max(len(trials) for _, trials in declared.values())
    made = _provenance([run for run in collection.runs if run.benchmark in datasets], method)
    columns = [*datasets, _AVERAGE]
    table = Table("Averages", "dataset", columns, rows, most, lacks.sentences(), provenance=made)
    return marked(replace(table, metric=metric, benchmarks=datasets))


def _provenance(runs: Sequence[CollectedRun], method: Method) -> Provenance | None:
    return provenance([run for run in runs if run.reported or method.needs_pairs])


def _reads(method: Method, run: CollectedRun, env: int) -> bool:
    """Return whether a selection method uses a run for a test environment."""
    return env in run.reported or (method.needs_pairs and len(run.test_envs) == 2 and env in run.test_envs)


def marked(table: Table) -> Table:
    """Mark the best and second best mean of every column, rounded as printed; ties share a mark."""
    best: set[tuple[str, int]] = set()
    second: set[tuple[str, int]] = set()
    for column in range(len(table.columns)):
        shown = {
            label: round(mean, 1)
            for label, cells in table.rows.items()
            if (mean := cells[column].mean) is not None and not isnan(mean)
        }
        ranks = sorted(set(shown.values()), reverse=not table.metric.lower_is_better)
        if len(shown) > 1:
            best.update((label, column) for label, value in shown.items() if value == ranks[0])
            second.update((label, column) for label, value in shown.items() if value in ranks[1:2])
    return replace(table, best=frozenset(best), second=frozenset(second))
