"""The first screen: the question, what was asked, and the verdicts."""

from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import NamedTuple

from dg_batchformer.report.choices import Choices
from dg_batchformer.report.figures.catalog import bf_pairs
from dg_batchformer.report.figures.frames import reference_pairs
from dg_batchformer.results.collection import Collection, most_draws
from dg_batchformer.stats.comparison import Comparison, Verdict
from dg_batchformer.stats.verdict import joint_coverage, sentence
from dg_batchformer.storage.folders import State, SweepFolder
from dg_batchformer.text.printable import one_line


def asked(collection: Collection) -> list[tuple[str, str]]:
    """Return the size of the sweep, as (name, value)."""
    runs = collection.runs
    environments = {(run.dataset, env) for run in runs for env in run.test_envs}
    trials, draws = {run.trial_seed for run in runs}, most_draws(collection.runs_and_searches)
    number = f"{len(runs)}, and {len(collection.searched)} of the search" if collection.searched else str(len(runs))
    return [
        ("datasets", ", ".join(collection.environments)),
        ("test environments", str(len(environments))),
        ("rows", str(len(collection.rows))),
        ("trials", str(len(trials))),
        ("hparams tried", str(draws) if draws > 1 else "none: defaults"),
        ("runs", number),
    ]


def progress(collection: Collection) -> str:
    """Return a sentence on how many of the runs are trained."""
    trained, runs = sum(run.state.is_final for run in collection.runs), len(collection.runs)
    stopped = sum(run.state is State.OUTRACED for run in collection.runs)
    said = f"All {runs} runs are trained" if trained == runs else f"{trained} of {runs} runs are trained"
    return f"{said}; a race stopped {stopped}." if stopped else f"{said}."


class Said(NamedTuple):
    """A verdict on a row.

    Args:
        word: Better, Worse, Undecided, Tie, or Too few runs.
        sentence: the verdict sentence of ``compare``.

    """

    word: str
    sentence: str


_WORDS = {
    Verdict.BETTER: "Better",
    Verdict.WORSE: "Worse",
    Verdict.EQUAL: "Tie",
    Verdict.OPEN: "Undecided",
    Verdict.FEW: "Too few runs",
    Verdict.EMPTY: "Too few runs",
}


def verdicts(choices: Choices) -> list[Said]:
    """Return ``compare``'s verdict on every row against the reference row.

    The row that adds only BatchFormer comes first, then the largest gain.
    """
    found = sorted(choices.comparisons(reference_pairs(choices)), key=_verdict_order)
    return [Said(_WORDS[one.verdict], sentence(one)) for one in found]


def _verdict_order(comparison: Comparison) -> tuple[bool, float]:
    adds_batchformer = bool(bf_pairs([comparison.baseline, comparison.other]))
    return not adds_batchformer, inf if comparison.mean is None else -comparison.mean


def coverage(choices: Choices) -> str:
    """Return a sentence on the joint coverage of the verdicts' intervals, '' for a single one."""
    family = max((one.family for one in choices.comparisons(reference_pairs(choices))), default=0)
    if family < 2:
        return ""
    return (
        f"{joint_coverage(family)} For a single row, compare gives a narrower interval; use it only if you chose that "
        "row before seeing results."
    )


def questions(folders: Sequence[Path]) -> list[str]:
    """Return the questions of those folders that are sweeps of ours: the first comments of their files."""
    found = [SweepFolder(folder).read().get("declared") for folder in folders if SweepFolder(folder).is_sweep]
    asked = [declared.get("question") for declared in found if isinstance(declared, dict)]
    return [one_line(question) for question in asked if isinstance(question, str) and question]
