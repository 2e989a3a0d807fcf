"""DomainBed's own selection of steps and draws, to reproduce its tables exactly.

It differs from ours in quirks: unfinished runs count, a leading NaN wins, and all runs of a draw are merged.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from dg_batchformer.results.evaluations import Evaluations, Floats, concatenate
from dg_batchformer.results.runs import RunRecords, whole_runs
from dg_batchformer.results.selection import nan_lowest


@dataclass(frozen=True)
class _Choice:
    """Validation and test accuracy of the step that a selection method takes from a draw."""

    validation: float
    test: float


@dataclass(frozen=True)
class Chosen:
    """The reported test accuracy of a trial and test environment."""

    trial: int
    env: int
    test: float


Choose = Callable[[Sequence[RunRecords], int], _Choice | None]  # (runs of one draw, test environment)


Groups = Mapping[tuple[int, str, str, int], Mapping[int, Sequence[RunRecords]]]
"""Runs by (trial, dataset, algorithm, test environment) and hparams seed; a pair is in both of its groups."""


def group_runs(runs: Iterable[RunRecords]) -> Groups:
    """Group runs, in the order given."""
    groups: dict[tuple[int, str, str, int], dict[int, list[RunRecords]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        dataset, algorithm, envs, trial, draw = run.place
        for env in envs:
            groups[trial, dataset, algorithm, env][draw].append(run)
    return groups


def choose_draws(groups: Groups, choose: Choose) -> Mapping[tuple[str, str], Sequence[Chosen]]:
    """Select a draw for every (dataset, algorithm), trial and environment; ties go to the largest hparams seed."""
    chosen: dict[tuple[str, str], list[Chosen]] = defaultdict(list)
    for (trial, dataset, algorithm, env), by_draw in groups.items():
        choices = [choose(by_draw[draw], env) for draw in sorted(by_draw, reverse=True)]
        found = [choice for choice in choices if choice is not None]
        if found:
            best = max(found, key=lambda choice: nan_lowest(choice.validation))
            chosen[dataset, algorithm].append(Chosen(trial, env, best.test))
    return chosen


def _evaluations(runs: Sequence[RunRecords], held_out: int) -> Evaluations:
    """Return the evaluations of runs that hold out ``held_out`` environments, in the order of folders and files."""
    found = [run.evaluations for run in runs if len(run.place.test_envs) == held_out]
    return concatenate(found) if found else Evaluations.of([])


def _validation_mean(evaluations: Evaluations, env: int) -> Floats:
    """Compute the mean accuracy on the held-out splits of the other environments [R]."""
    keys = _held_out(evaluations.num_environments, env)
    values = np.ascontiguousarray(evaluations.columns(keys))
    return values.mean(axis=1) if keys else np.full(len(evaluations), np.nan)


@lru_cache(maxsize=1024)
def _held_out(num_environments: int, env: int) -> Sequence[str]:
    return tuple(f"env{other}_out_acc" for other in range(num_environments) if other != env)


def _first_max(values: Floats) -> int:
    """Return the index that Python's max picks: a leading NaN wins, other NaNs never do."""
    listed = values.tolist()
    return max(range(len(listed)), key=listed.__getitem__)


def _choose_training_domain(runs: Sequence[RunRecords], env: int) -> _Choice | None:
    evaluations = _evaluations(runs, 1)
    if not len(evaluations):
        return None
    validation = _validation_mean(evaluations, env)
    place = _first_max(validation)
    return _Choice(validation[place], evaluations.column(f"env{env}_in_acc")[place])


def _choose_oracle(runs: Sequence[RunRecords], env: int) -> _Choice | None:
    evaluations = _evaluations(runs, 1)
    if not len(evaluations):
        return None
    place = int(np.argsort(evaluations.steps, kind="stable")[-1])
    return _Choice(evaluations.column(f"env{env}_out_acc")[place], evaluations.column(f"env{env}_in_acc")[place])


def _choose_leave_one_out(runs: Sequence[RunRecords], env: int) -> _Choice | None:
    if all(len(run.place.test_envs) == 1 for run in runs):
        return None
    single = _evaluations(runs, 1)
    others = [other for other in range(single.num_environments) if other != env]
    pairs: dict[int, dict[int, float]] = {other: {} for other in others}  # accuracy on the other, by step
    for run in runs:
        if len(run.args["test_envs"]) == 2:
            [other] = set(run.args["test_envs"]) - {env}
            values = run.evaluations.column(f"env{other}_in_acc").tolist()
            pairs.get(other, {}).update(zip(run.evaluations.steps.tolist(), values, strict=True))
    steps = single.steps.tolist()
    once = Counter(steps)
    places = [
        place
        for place in np.argsort(single.steps, kind="stable").tolist()
        if once[steps[place]] == 1 and all(steps[place] in pair for pair in pairs.values())
    ]
    if not places or not others:
        return None
    accuracies = np.array([[pair[steps[place]] for pair in pairs.values()] for place in places])
    validation = accuracies.sum(axis=1) / len(others)
    best = _first_max(validation)
    return _Choice(validation[best], single.column(f"env{env}_in_acc")[places[best]])


def _choose_auto_lr(runs: Sequence[RunRecords], env: int) -> _Choice | None:
    choices = []
    for run in whole_runs([run for run in runs if len(run.args["test_envs"]) == 1]):
        last = run.evaluations.latest()
        test = last.get(f"fd_env{env}_in_acc")
        held_out = _held_out(run.evaluations.num_environments, env)
        if test is not None and all(key in last for key in held_out):
            choices.append(_Choice(float(np.mean([last[key] for key in held_out])), test))
    return choices[_first_max(np.array([choice.validation for choice in choices]))] if choices else None


CHOOSE: Mapping[str, Choose] = {
    "training-domain": _choose_training_domain,
    "leave-one-domain-out": _choose_leave_one_out,
    "oracle": _choose_oracle,
    "auto-lr": _choose_auto_lr,
}
