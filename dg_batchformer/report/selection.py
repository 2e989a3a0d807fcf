"""Model selection: which evaluation of which draw is reported, without looking at what is reported.

A run's accuracy on a test environment is that on its ``in`` split, as in DomainBed. Ties: the earliest step, the
largest hparams seed. Of a run that averages (SWAD), only the ``final`` record is of the model that it returns; one
that diverged has none, so nothing is selected of it. The ``swad-`` methods look at the models during training
instead, as SWAD's own tables do.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isnan
from statistics import fmean

from dg_batchformer.catalog import AVERAGING_WRAPPERS
from dg_batchformer.names import split_name
from dg_batchformer.record import Record
from dg_batchformer.report.collect import CollectedRun


@dataclass(frozen=True)
class Score:
    """What was selected.

    Args:
        validation: what the selection looked at. test: the reported accuracy. Fractions.
        in_domain: mean accuracy on the held-out splits of the training environments; None if not recorded.

    """

    validation: float
    test: float
    step: int
    in_domain: float | None = None


Select = Callable[[Sequence[CollectedRun], int, int], Score | None]


@dataclass(frozen=True)
class Method:
    """A selection method.

    Args:
        name: as people type it. title: as tables say it. about: one line.
        select: (runs of one row, dataset, trial and hparams seed; test env; number of environments) -> Score.
        needs_pairs: whether it reads runs that hold out two environments.

    """

    name: str
    title: str
    about: str
    select: Select
    needs_pairs: bool = False


def best_of_draws(
    method: Method, by_draw: Mapping[int, Sequence[CollectedRun]], env: int, num_envs: int
) -> Score | None:
    """Return the score of the draw that validates best; of equals, the largest hparams seed."""
    scores = [method.select(by_draw[draw], env, num_envs) for draw in sorted(by_draw, reverse=True)]
    return _first_max(scores)


def _first_max(scores: Sequence[Score | None]) -> Score | None:
    found = [score for score in scores if score is not None]
    return max(found, key=lambda score: _order(score.validation), default=None)


def _order(value: float) -> float:
    return -inf if isnan(value) else value


def _single(runs: Sequence[CollectedRun], env: int) -> CollectedRun | None:
    """Return the run that holds out this environment alone."""
    return next((run for run in runs if tuple(run.spec.test_envs) == (env,)), None)


def _returned(run: CollectedRun | None) -> Sequence[Record]:
    """Return the evaluations of models that a run may return."""
    if run is None:
        return []
    averages = any(wrapper in AVERAGING_WRAPPERS for wrapper in split_name(run.spec.algorithm)[1])
    return [record for record in run.records if record.final is averages]


def _in_training(run: CollectedRun | None) -> Sequence[Record]:
    """Return the evaluations during training."""
    return [] if run is None else [record for record in run.records if not record.final]


def _score(record: Record, env: int, validation: float | None) -> Score | None:
    test = record.accuracy.get((env, "in"))
    return None if validation is None or test is None else Score(validation, test, record.step, _held_out(record, env))


def _held_out(record: Record, env: int) -> float | None:
    """Return the mean accuracy on the held-out splits of all environments but one; None if there is none."""
    values = [value for (other, split), value in record.accuracy.items() if split == "out" and other != env]
    return fmean(values) if values else None


def _training_domain(records: Sequence[Record], env: int) -> Score | None:
    return _first_max([_score(record, env, _held_out(record, env)) for record in records])


def _oracle(records: Sequence[Record], env: int) -> Score | None:
    return _first_max([_score(record, env, record.accuracy.get((env, "out"))) for record in records])


def _select_training_domain(runs: Sequence[CollectedRun], env: int, num_envs: int) -> Score | None:
    return _training_domain(_returned(_single(runs, env)), env)


def _select_oracle(runs: Sequence[CollectedRun], env: int, num_envs: int) -> Score | None:
    return _oracle(_returned(_single(runs, env))[-1:], env)


def _select_leave_one_out(runs: Sequence[CollectedRun], env: int, num_envs: int) -> Score | None:
    """Validate a step by the runs that hold out one more environment: their accuracy there, averaged."""
    others = [other for other in range(num_envs) if other != env]
    pairs = {
        (other, record.step): record.accuracy.get((other, "in"))
        for run in runs
        for other in others
        if tuple(run.spec.test_envs) == tuple(sorted((env, other)))
        for record in _returned(run)
    }

    def validation(step: int) -> float | None:
        found = [pairs.get((other, step)) for other in others]
        complete = [value for value in found if value is not None]
        return fmean(complete) if len(complete) == len(others) else None

    return _first_max([_score(record, env, validation(record.step)) for record in _returned(_single(runs, env))])


def _select_swad_iid(runs: Sequence[CollectedRun], env: int, num_envs: int) -> Score | None:
    return _training_domain(_in_training(_single(runs, env)), env)


def _select_swad_last(runs: Sequence[CollectedRun], env: int, num_envs: int) -> Score | None:
    return _training_domain(_in_training(_single(runs, env))[-1:], env)


def _select_swad_oracle(runs: Sequence[CollectedRun], env: int, num_envs: int) -> Score | None:
    return _oracle(_in_training(_single(runs, env)), env)


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
        "the step and draw that do best on each further environment held out; needs a sweep with pairs",
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
        "as training-domain, of the models during training: averaged ones left out",
        _select_swad_iid,
    ),
    Method(
        "swad-last",
        "last: last evaluation, without averaging",
        "the last evaluation of the best draw: averaged models left out",
        _select_swad_last,
    ),
    Method(
        "swad-oracle",
        "oracle: best step on the test domain, without averaging",
        "the step and draw that do best on the held-out split of the test environment: averaged models left out",
        _select_swad_oracle,
    ),
)

METHODS: dict[str, Method] = {method.name: method for method in _METHODS}
DEFAULT_METHODS = ("training-domain", "leave-one-domain-out", "oracle")
