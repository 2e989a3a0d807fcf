"""Apply a selection method to every row, test environment and trial: the numbers of tables and figures."""

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from dg_batchformer.results.collection import Candidate, CollectedRun, Collection
from dg_batchformer.results.metrics import ACCURACY, Measurements
from dg_batchformer.results.selection import Method, Score, best_draw

Key = tuple[str, str, int, int]  # (benchmark, label, env, trial)
Scores = dict[Key, Score]
_Value = TypeVar("_Value")


class Choice(NamedTuple):
    """The run of the selected draw for one test environment, and its score."""

    run: CollectedRun
    score: Score


def choose(collection: Collection, method: Method) -> Mapping[Key, Choice]:
    """Return the choice for every (benchmark, label, env, trial) with a result."""
    groups: dict[tuple[str, str, int], dict[Candidate, list[CollectedRun]]] = defaultdict(lambda: defaultdict(list))
    for run in collection.runs:
        groups[run.benchmark, run.label, run.trial_seed][run.candidate].append(run)
    choices = {}
    for (benchmark, label, trial), by_draw in groups.items():
        num_envs = len(collection.environments[benchmark])
        for env in range(num_envs):
            best = best_draw(method, by_draw, env, num_envs)
            if best is not None:
                draw, score = best
                run = next(run for run in by_draw[draw] if env in run.reported)
                choices[benchmark, label, env, trial] = Choice(run, score)
    return choices


def score(collection: Collection, method: Method, measurements: Measurements | None = None) -> Scores:
    """Return the selected score for every row, test environment and trial; by default, accuracies."""
    choices = measured_choices(collection, method, measurements or Measurements(ACCURACY))
    return {key: choice.score for key, choice in choices.items()}


def measured_choices(collection: Collection, method: Method, measurements: Measurements) -> dict[Key, Choice]:
    """Return the choice for every row, test environment and trial, with scores in the given metric."""
    choices = {}
    for key, choice in choose(collection, method).items():
        measured = measurements.score(choice.score, choice.run, key[2])
        if measured is not None:
            choices[key] = Choice(choice.run, measured)
    return choices


def whole_trials(by_env: Mapping[int, Mapping[int, _Value]]) -> dict[int, dict[int, _Value]]:
    """Turn values by environment and trial into values by trial and environment, of trials that have all environments.

    Means over environments are comparable between such trials only.
    """
    shared = [trial for trial in next(iter(by_env.values()), {}) if all(trial in of_env for of_env in by_env.values())]
    return {trial: {env: of_env[trial] for env, of_env in by_env.items()} for trial in shared}
