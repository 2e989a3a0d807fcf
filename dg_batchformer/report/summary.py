"""The question of a sweep, and its outcome in one sentence."""

from collections.abc import Sequence
from math import isnan

from dg_batchformer.results.collection import Collection
from dg_batchformer.results.selection import METHODS
from dg_batchformer.stats.comparison import compare_pairs
from dg_batchformer.stats.verdict import order
from dg_batchformer.tables.render.wording import number
from dg_batchformer.tables.table import Cell, Section


def asked(collection: Collection) -> list[tuple[str, str]]:
    """Return the size of the sweep, as (name, value)."""
    runs = collection.runs
    environments = {(run.dataset, env) for run in runs for env in run.test_envs}
    trials, draws = {run.trial_seed for run in runs}, {run.hparams_seed for run in runs}
    return [
        ("datasets", ", ".join(collection.environments)),
        ("test environments", str(len(environments))),
        ("rows", str(len(collection.rows))),
        ("trials", str(len(trials))),
        ("draws of hparams", str(len(draws)) if len(draws) > 1 else "none: defaults"),
        ("runs", str(len(runs))),
    ]


def progress(collection: Collection) -> str:
    """Return a sentence on how many of the runs are trained."""
    trained, runs = sum(run.state.is_final for run in collection.runs), len(collection.runs)
    return f"All {runs} runs are trained." if trained == runs else f"{trained} of {runs} runs are trained."


def outcome(section: Section, collection: Collection) -> str:
    """Return sentences on the best row, its lead over the second, and whether the lead is significant."""
    averages = _averages(section)
    by = f"selected by {section.method.title}"
    if not averages:
        return f"No row has all test environments of a trial yet ({by})."
    where = section.tables[-1].title if len(section.tables) == 1 else f"{len(section.tables) - 1} datasets"
    trials = section.tables[-1].trials
    (label, best), *others = averages
    if not others:
        return f"{label} reaches an average test accuracy of {_percent(best, trials)} on {where}, {by}."
    second, next_best = others[0]
    pairs = len(averages) * len(others) // 2  # correct for all pairs, because any two rows could have come first
    [comparison] = compare_pairs(collection, [(second, label)], METHODS[section.method.name], family=pairs)
    lead = _mean(best) - _mean(next_best)
    return (
        f"{label} has the highest average test accuracy on {where}, {_percent(best, trials)}; "
        f"{second} follows {lead:.1f} points behind with {_percent(next_best, trials)}, {by}. "
        f"{order(comparison)}"
    )


def _averages(section: Section) -> Sequence[tuple[str, Cell]]:
    """Return the rows that have an overall average, best first."""
    if not section.tables:
        return []
    table = section.tables[-1]
    column = table.average
    found = [(label, cells[column]) for label, cells in table.rows.items() if cells[column].mean is not None]
    return sorted([one for one in found if not isnan(_mean(one[1]))], key=lambda one: -_mean(one[1]))


def _percent(cell: Cell, trials: int) -> str:
    value, bracket, n = number(cell, " ± ", trials).partition(" (")
    return f"{value} %{bracket}{n}".replace(" ", "\N{NO-BREAK SPACE}")


def _mean(cell: Cell) -> float:
    assert cell.mean is not None
    return cell.mean
