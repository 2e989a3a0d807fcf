"""Run states by row, and the reasons of failed and diverged runs."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from dg_batchformer.results.collection import CollectedRun, Collection
from dg_batchformer.storage.folders import State

_SHOWN = 8  # runs listed for each reason


@dataclass(frozen=True)
class Trouble:
    """Runs that failed, diverged or lost files for one reason: the reason, their number and the first of them."""

    state: State
    sentence: str
    total: int
    shown: Sequence[str]


def states(collection: Collection) -> tuple[list[State], list[tuple[str, list[int]]]]:
    """Return the states that occur, and for each row the number of runs in each of these states."""
    counts = {label: Counter[State]() for label in collection.rows}
    for run in collection.runs:
        counts[run.label][run.state] += 1
    found = [state for state in State if any(count[state] for count in counts.values())]
    return found, [(label, [count[state] for state in found]) for label, count in counts.items()]


def troubles(collection: Collection) -> list[Trouble]:
    """Return runs with problems grouped by reason, the most frequent first, diverged runs last."""
    by_reason: dict[tuple[State, str], list[CollectedRun]] = defaultdict(list)
    for run in collection.runs:
        if run.state is State.FAILED:
            by_reason[run.state, run.ending.failure or "it left no reason"].append(run)
        elif run.state is State.DAMAGED:
            by_reason[run.state, "a file was changed or deleted after the run finished"].append(run)
        elif run.state is State.GONE:
            by_reason[run.state, "the run was trained, but its folder was deleted"].append(run)
        elif run.state is State.DIVERGED:
            by_reason[run.state, "loss or metrics are not finite"].append(run)
    found = [
        Trouble(state, sentence, len(runs), [_name(collection, run) for run in runs[:_SHOWN]])
        for (state, sentence), runs in by_reason.items()
    ]
    return sorted(found, key=lambda trouble: (trouble.state is State.DIVERGED, -trouble.total))


def _name(collection: Collection, run: CollectedRun) -> str:
    names = collection.environments[run.benchmark]
    envs = ", ".join(names[env] for env in run.test_envs)
    draw = f", draw {run.hparams_seed}" if run.hparams_seed else f", {run.candidate.point}" if run.point else ""
    return f"{run.label} on {run.dataset}/{envs}, trial {run.trial_seed}{draw} ({run.path.name})"
