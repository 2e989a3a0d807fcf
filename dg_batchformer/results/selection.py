"""Model selection: select the step and draw to report, without using the reported accuracy.

The test accuracy of a run is that on the ``in`` split of its test environment, as in DomainBed. Ties go to the earliest
step, the largest hparams seed and the first grid point. For a run that averages weights (SWAD), only the ``final``
record is of the returned model; a diverged run has none, so it is not selected. The ``swad-`` methods use the models
during training instead, as SWAD's own tables do.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isnan
from statistics import fmean
from typing import NamedTuple

import numpy as np

from dg_batchformer.catalog.wrappers import returns_average
from dg_batchformer.results.collection import Candidate, CollectedRun
from dg_batchformer.results.evaluations import Evaluations, Flags, Floats


@dataclass(frozen=True)
class Score:
    """The selected result; accuracies are in [0, 1].

    Args:
        validation: the accuracy used for selection. test: the reported accuracy.
        in_domain: mean accuracy on the held-out splits of the training environments; None if not recorded.

    """

    validation: float
    test: float
    step: int
    in_domain: float | None = None


Select = Callable[[Sequence[CollectedRun], int, int], Score | None]


@dataclass(frozen=True)
class Selection:
    """The subject of a section of tables.

    Args:
        name: for the command line. title: for tables. about: one-line description.

    """

    name: str
    title: str
    about: str


@dataclass(frozen=True)
class Method(Selection):
    """A selection method.

    Args:
        select: (runs of one row, dataset, trial and hparams seed; test env; number of environments) -> Score.
        needs_pairs: whether it uses runs that hold out two environments.

    """

    select: Select
    needs_pairs: bool = False


def nan_lowest(value: float) -> float:
    """Return a sort key for a validation accuracy: NaN, of a diverged run, is lowest."""
    return -inf if isnan(value) else value


def best_draw(
    method: Method, by_draw: Mapping[Candidate, Sequence[CollectedRun]], env: int, num_envs: int
) -> tuple[Candidate, Score] | None:
    """Return the best draw or grid point by validation, and its score.

    Ties go to the largest hparams seed, as in DomainBed, and to the first grid point.
    """
    latest_first = sorted(by_draw, key=lambda draw: -draw.seed)  # stable: grid points stay in order
    scores = {draw: method.select(by_draw[draw], env, num_envs) for draw in latest_first}
    found = [(draw, score) for draw, score in scores.items() if score is not None]
    return max(found, key=lambda one: nan_lowest(one[1].validation), default=None)


class _Models(NamedTuple):
    """Evaluations [R] to select from.

    Args:
        evaluations: of the run for a test environment.
        validating: environments whose held-out splits are the validation set.

    """

    evaluations: Evaluations
    validating: Sequence[int]

    def at(self, where: Flags | slice) -> "_Models":
        return _Models(self.evaluations.at(where), self.validating)

    def held_out(self) -> tuple[Floats, Flags]:
        return validation_accuracy(self.evaluations, self.validating)


def validation_accuracy(evaluations: Evaluations, envs: Sequence[int]) -> tuple[Floats, Flags]:
    """Compute the mean accuracy on the held-out splits of environments [R], and whether any was recorded [R]."""
    return evaluations.mean([f"env{env}_out_acc" for env in envs])


def _single(runs: Sequence[CollectedRun], env: int) -> _Models:
    """Return the models of the single-environment run for a test environment; empty if there is none."""
    run = _run(runs, env)
    return _Models(Evaluations.of([]), []) if run is None else _Models(run.evaluations, run.validating(env))


def _returned(runs: Sequence[CollectedRun], env: int) -> _Models:
    """Return the models that the run could return."""
    run = _run(runs, env)
    return _single(runs, env) if run is None else _Models(_of_returned(run), run.validating(env))


def _run(runs: Sequence[CollectedRun], env: int) -> CollectedRun | None:
    return next((run for run in runs if env in run.reported), None)


def _of_returned(run: CollectedRun) -> Evaluations:
    ours = "protocol" in run.constant  # other suites write no final record
    # Wrappers of plug-ins are not imported to read their results.
    averages = ours and (returns_average(run.algorithm) or bool(run.evaluations.final.any()))
    return run.evaluations.at(run.evaluations.final == averages)


def _in_training(runs: Sequence[CollectedRun], env: int) -> _Models:
    """Return the models during training."""
    models = _single(runs, env)
    return models.at(~models.evaluations.final)


def _best(models: _Models, env: int, validation: Floats, known: Flags) -> Score | None:
    """Return the score of the best known validation [R]; ties go to the earliest."""
    evaluations = models.evaluations
    places = np.flatnonzero(known & evaluations.has(f"env{env}_in_acc"))
    if not len(places):
        return None
    ordered = np.where(np.isnan(validation[places]), -inf, validation[places])
    place = places[np.argmax(ordered)]
    in_domain, recorded = models.at(slice(place, place + 1)).held_out()
    return Score(
        float(validation[place]),
        float(evaluations.column(f"env{env}_in_acc")[place]),
        int(evaluations.steps[place]),
        float(in_domain[0]) if recorded[0] else None,
    )


def _training_domain(models: _Models, env: int) -> Score | None:
    return _best(models, env, *models.held_out())


def _oracle(models: _Models, env: int) -> Score | None:
    key = f"env{env}_out_acc"
    return _best(models, env, models.evaluations.column(key), models.evaluations.has(key))


def _select_training_domain(runs: Sequence[CollectedRun], env: int, num_envs: int) -> Score | None:
    return _training_domain(_returned(runs, env), env)


def _select_oracle(runs: Sequence[CollectedRun], env: int, num_envs: int) -> Score | None:
    return _oracle(_last(_returned(runs, env)), env)


def _last(models: _Models) -> _Models:
    """Return the model of the last step."""
    steps = models.evaluations.steps
    if not len(steps):
        return models
    place = len(steps) - 1 - int(np.argmax(steps[::-1]))
    return models.at(slice(place, place + 1))


def _select_leave_one_out(runs: Sequence[CollectedRun], env: int, num_envs: int) -> Score | None:
    """Validate each step by the mean accuracy, on a further held-out environment, of the runs that hold it out too."""
    others = [other for other in range(num_envs) if other != env]
    pairs = {run.test_envs: run for run in reversed(runs)}
    needed = [tuple(sorted((env, other))) for other in others]
    if not all(envs in pairs for envs in needed):
        return None
    single = _returned(runs, env)
    evaluations = single.evaluations
    total, complete = np.zeros(len(evaluations)), np.ones(len(evaluations), np.bool_)
    for other, envs in zip(others, needed, strict=True):
        values, known = _at_steps(evaluations, pairs[envs], f"env{other}_in_acc")
        total += values
        complete &= known
    return _best(single, env, total / max(num_envs - 1, 1), complete)


def _at_steps(single: Evaluations, pair: CollectedRun, key: str) -> tuple[Floats, Flags]:
    """Return the values that another run recorded at the same steps [R], and whether it did [R]."""
    there = _of_returned(pair)
    has = there.has(key)
    found = dict(zip(there.steps[has].tolist(), there.column(key)[has].tolist(), strict=True))
    steps = single.steps.tolist()
    return np.array([found.get(step, 0.0) for step in steps]), np.array([step in found for step in steps], np.bool_)


def _select_swad_iid(runs: Sequence[CollectedRun], env: int, num_envs: int) -> Score | None:
    return _training_domain(_in_training(runs, env), env)


def _select_swad_last(runs: Sequence[CollectedRun], env: int, num_envs: int) -> Score | None:
    return _training_domain(_last(_in_training(runs, env)), env)


def _select_swad_oracle(runs: Sequence[CollectedRun], env: int, num_envs: int) -> Score | None:
    return _oracle(_in_training(runs, env), env)


def _select_swad_averaged(runs: Sequence[CollectedRun], env: int, num_envs: int) -> Score | None:
    models = _single(runs, env)
    return _training_domain(models.at(models.evaluations.final), env)


def _select_auto_lr(runs: Sequence[CollectedRun], env: int, num_envs: int) -> Score | None:
    """Validate with the stage that holds images out, and test with the one that trains on all; both at their end."""
    evaluations, _ = _single(runs, env)
    latest = evaluations.latest()
    held_out = [latest[key] for other in range(num_envs) if other != env and (key := f"env{other}_out_acc") in latest]
    test = latest.get(f"fd_env{env}_in_acc")
    if test is None or not held_out:
        return None
    return Score(fmean(held_out), test, int(evaluations.steps[-1]), fmean(held_out))


_METHODS = (
    Method(
        "training-domain",
        "training-domain validation set",
        "the step and draw with the best mean accuracy on the held-out splits of the training environments",
        _select_training_domain,
    ),
    Method(
        "leave-one-domain-out",
        "leave-one-domain-out cross-validation",
        "the step and draw that do best on each second held-out environment; needs a sweep with pairs: true",
        _select_leave_one_out,
        needs_pairs=True,
    ),
    Method(
        "oracle",
        "test-domain validation set (oracle)",
        "the draw whose last step does best on the held-out split of the test environment",
        _select_oracle,
    ),
    Method(
        "swad-iid",
        "iid: best training-domain validation, without averaging",
        "as training-domain, but without averaged models",
        _select_swad_iid,
    ),
    Method(
        "swad-last",
        "last: last evaluation, without averaging",
        "the last evaluation of the best draw, without averaged models",
        _select_swad_last,
    ),
    Method(
        "swad-oracle",
        "oracle: best step on the test domain, without averaging",
        "the step and draw that do best on the held-out split of the test environment, without averaged models",
        _select_swad_oracle,
    ),
    Method(
        "swad-averaged",
        "averaged model",
        "the averaged model of the draw that validates best on the training environments, for methods that average",
        _select_swad_averaged,
    ),
    Method(
        "auto-lr",
        "auto lr training-domain validation set",
        "DomainBed's two-stage training: the stage with held-out images validates, the stage on all images is tested",
        _select_auto_lr,
    ),
)

METHODS: dict[str, Method] = {method.name: method for method in _METHODS}
DEFAULT_METHODS = ("training-domain", "leave-one-domain-out", "oracle")
