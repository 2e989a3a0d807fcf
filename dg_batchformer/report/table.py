"""Tables as data: for every selection method, one per dataset and one of averages over datasets."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, pstdev

from dg_batchformer.report.collection import CollectedRun, Collection
from dg_batchformer.report.provenance import Provenance, provenance
from dg_batchformer.report.selection import METHODS, Method, Score, best_of_draws
from dg_batchformer.store import State


@dataclass(frozen=True)
class Cell:
    """A mean accuracy in percent over n trials with its standard error; None where there is nothing to say.

    The error is DomainBed's: population deviation over the square root of n. A mean over datasets has none.
    """

    mean: float | None = None
    error: float | None = None
    n: int = 0

    @classmethod
    def of(cls, values: Sequence[float]) -> "Cell":
        """Build a cell from fractions, one for each trial; an empty one from none."""
        if not values:
            return cls()
        return cls(100 * fmean(values), 100 * pstdev(values) / len(values) ** 0.5, len(values))


@dataclass(frozen=True)
class PublishedRow:
    """A row of the literature. It stands apart from our rows, so that no mark and no test takes it for a trial.

    Args:
        label: says the source too. key: of its BibTeX entry. source: its citation and place.
        cells: as the columns of the table; empty where nothing is published.

    """

    label: str
    algorithm: str
    key: str
    source: str
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Table:
    """Rows by label, columns by environment or dataset, then summary columns.

    Args:
        best, second: (row, column) of the highest and second highest mean of every column.
        differing: "above" or "below" by (row, column) of means that differ significantly from a baseline row's.
        notes: what cells lack, and what summary columns are.
        published: rows of the literature, below ours.
        provenance: how the numbers were made; None where there are none.

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
    provenance: Provenance | None = None

    @property
    def has_empty_cells(self) -> bool:
        """Whether some cell has no value."""
        return any(cell.mean is None for row in self.rows.values() for cell in row)


@dataclass(frozen=True)
class Section:
    """All tables of one selection method; notes name the datasets that have none."""

    method: Method
    tables: Sequence[Table]
    notes: Sequence[str]


Scores = dict[tuple[str, str, int, int], Score]  # (dataset, label, env, trial)


def build_sections(collection: Collection, methods: Sequence[str]) -> list[Section]:
    """Build the tables of a sweep for some selection methods."""
    return [_section(collection, METHODS[name]) for name in methods]


def _section(collection: Collection, method: Method) -> Section:
    datasets = list(collection.environments)
    paired = {run.benchmark for run in collection.runs if len(run.test_envs) == 2 and not run.sources}
    shown = [name for name in datasets if name in paired or not method.needs_pairs]
    by_source = {run.benchmark for run in collection.runs if run.sources}
    needs = "needs runs that hold out two environments"
    notes = [
        f"{name}: {needs}, which a sweep with train_envs has not"
        if name in by_source
        else f"{name}: {needs}; give the sweep 'pairs: true'"
        for name in datasets
        if name not in shown
    ]
    scores = score(collection, method)
    tables = [_dataset_table(collection, method, dataset, scores) for dataset in shown]
    if len(shown) > 1:
        tables.append(_averages_table(collection, method, shown, scores))
    return Section(method, tables, notes)


def score(collection: Collection, method: Method) -> Scores:
    """Return what a method selects of every row, test environment and trial."""
    groups: dict[tuple[str, str, int], dict[int, list[CollectedRun]]] = defaultdict(lambda: defaultdict(list))
    for run in collection.runs:
        key = (run.benchmark, run.label, run.trial_seed)
        groups[key][run.hparams_seed].append(run)
    scores: Scores = {}
    for (dataset, label, trial), by_draw in groups.items():
        num_envs = len(collection.environments[dataset])
        for env in range(num_envs):
            best = best_of_draws(method, by_draw, env, num_envs)
            if best is not None:
                scores[dataset, label, env, trial] = best
    return scores


def _dataset_table(collection: Collection, method: Method, dataset: str, scores: Scores) -> Table:
    names = collection.environments[dataset]
    runs = [run for run in collection.runs if run.benchmark == dataset]
    envs, trials = _declared(runs)
    rows, lacks = {}, _Lacks(collection.rows, [names[env] for env in envs])
    for label in collection.rows:
        by_env = {env: _trial_scores(scores, dataset, label, env, trials) for env in envs}
        cells = [Cell.of([score.test for score in by_env[env].values()]) for env in envs]
        for env, cell in zip(envs, cells, strict=True):
            read = [run for run in runs if run.label == label and _reads(method, run, env)]
            lacks.add(label, names[env], _lack(read, cell.n, len(trials)))
        rows[label] = [*cells, *_summaries(by_env, trials)]
    columns = [*(names[env] for env in envs), *_SUMMARIES]
    few = any(cell.n < len(trials) for row in rows.values() for cell in row[len(envs) :])
    notes = [*lacks.sentences(), *_about_summaries(few, len(envs), len(names) - len(runs[0].sources))]
    made = _provenance(runs, method)
    return _marked(Table(dataset, "test environment", columns, rows, len(trials), notes, provenance=made))


_SUMMARIES = ("Average", "Worst", "In-domain")


def _about_summaries(few: bool, shown: int, known: int) -> list[str]:
    """Say what the summary columns are where that is not plain; ``few`` says that they lack a trial."""
    notes = []
    if shown < known:
        notes.append(f"Average, Worst: over the {shown} of {known} environments that are held out")
    if few:
        notes.append(f"{', '.join(_SUMMARIES)}: over the trials that have all environments")
    return [*notes, "In-domain: the same models on the held-out splits of the environments that they were trained on"]


def _declared(runs: Sequence[CollectedRun]) -> tuple[list[int], list[int]]:
    """Return the environments with a cell, and the trial seeds."""
    envs = {env for run in runs for env in run.reported}
    return sorted(envs), sorted({run.trial_seed for run in runs})


class _Lacks:
    """What cells lack, said once per reason."""

    def __init__(self, labels: Sequence[str], columns: Sequence[str]) -> None:
        self.all = {(label, column) for label in labels for column in columns}
        self.cells: dict[str, list[tuple[str, str]]] = defaultdict(list)

    def add(self, label: str, column: str, reason: str) -> None:
        if reason:
            self.cells[reason].append((label, column))

    def sentences(self) -> list[str]:
        return [f"{self._where(cells)}: {reason}" for reason, cells in self.cells.items()]

    def _where(self, cells: Sequence[tuple[str, str]]) -> str:
        if set(cells) == self.all:
            return "every cell"
        columns: dict[str, list[str]] = defaultdict(list)
        for label, column in cells:
            columns[label].append(column)
        return "; ".join(f"{label} ({', '.join(names)})" for label, names in columns.items())


def _trial_scores(scores: Scores, dataset: str, label: str, env: int, trials: Sequence[int]) -> dict[int, Score]:
    return {trial: score for trial in trials if (score := scores.get((dataset, label, env, trial)))}


def _summaries(by_env: Mapping[int, Mapping[int, Score]], trials: Sequence[int]) -> tuple[Cell, Cell, Cell]:
    """Average, worst and in-domain accuracy of every trial that has all environments, over trials."""
    complete = [trial for trial in trials if all(trial in values for values in by_env.values())]
    found = [[by_env[env][trial] for env in by_env] for trial in complete]
    in_domain = [[score.in_domain for score in trial if score.in_domain is not None] for trial in found]
    return (
        Cell.of([fmean(score.test for score in trial) for trial in found]),
        Cell.of([min(score.test for score in trial) for trial in found]),
        Cell.of([fmean(values) for values in in_domain if len(values) == len(by_env)]),
    )


def _averages_table(collection: Collection, method: Method, datasets: Sequence[str], scores: Scores) -> Table:
    declared = {name: _declared([run for run in collection.runs if run.benchmark == name]) for name in datasets}
    rows, lacks = {}, _Lacks(collection.rows, datasets)
    for label in collection.rows:
        cells = []
        for dataset, (envs, trials) in declared.items():
            by_env = {env: _trial_scores(scores, dataset, label, env, trials) for env in envs}
            average, *_ = _summaries(by_env, trials)
            few = f"{average.n} of {len(trials)} trials have all environments"
            lacks.add(label, dataset, few if average.n < len(trials) else "")
            cells.append(average)
        means = [cell.mean for cell in cells if cell.mean is not None]
        rows[label] = [*cells, Cell(fmean(means)) if len(means) == len(cells) else Cell()]
    most = max(len(trials) for _, trials in declared.values())
    made = _provenance([run for run in collection.runs if run.benchmark in datasets], method)
    columns = [*datasets, "Average"]
    return _marked(Table("Averages", "dataset", columns, rows, most, lacks.sentences(), provenance=made))


def _provenance(runs: Sequence[CollectedRun], method: Method) -> Provenance | None:
    return provenance([run for run in runs if run.reported or method.needs_pairs])


def _reads(method: Method, run: CollectedRun, env: int) -> bool:
    """Whether a selection method looks at a run for an environment."""
    return env in run.reported or (method.needs_pairs and len(run.test_envs) == 2 and env in run.test_envs)


def _lack(read: Sequence[CollectedRun], n: int, trials: int) -> str:
    """Return what a cell of n trials lacks, of the runs that it is read from; '' for nothing."""
    untrained = Counter(run.state for run in read if not run.state.is_final)
    diverged = sum(run.state is State.DIVERGED for run in read)
    reasons = []
    if untrained:
        states = ", ".join(f"{count} {state}" for state, count in untrained.items())
        reasons.append(f"{len(read) - untrained.total()} of {len(read)} runs trained, {states}")
    if diverged:
        reasons.append(f"{diverged} run{'s' * (diverged != 1)} diverged")
    if n < trials:
        reasons = [f"{n} of {trials} trials", *(reasons or ["the records lack what this selection reads"])]
    return "; ".join(reasons)


def _marked(table: Table) -> Table:
    """Mark the best and second best mean of every column, as printed: equals share a mark."""
    best: set[tuple[str, int]] = set()
    second: set[tuple[str, int]] = set()
    for column in range(len(table.columns)):
        shown = {
            label: round(cells[column].mean, 1)  # type: ignore[arg-type]
            for label, cells in table.rows.items()
            if cells[column].mean is not None
        }
        ranks = sorted(set(shown.values()), reverse=True)
        if len(shown) > 1:
            best.update((label, column) for label, value in shown.items() if value == ranks[0])
            second.update((label, column) for label, value in shown.items() if value in ranks[1:2])
    return replace(table, best=frozenset(best), second=frozenset(second))
