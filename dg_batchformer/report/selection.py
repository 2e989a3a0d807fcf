"""Model selection: which evaluation of which draw is reported, without looking at what is reported.

A run's accuracy on a test environment is that on its ``in`` split, as in DomainBed. Ties: the earliest step, the
largest hparams seed. A ``final`` record (SWAD's averaged model) is what the run returns, so it is preferred, but
for the ``swad-`` methods, which look at the model during training as SWAD's own tables do.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isnan
from statistics import fmean

from dg_batchformer.record import Record
from dg_batchformer.report.collect import CollectedRun


@dataclass(frozen=True)
class Score:
    """What was selected: validation value, reported accuracy (fractions) and step."""

    validation: float
    test: float
    step: int


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
    scores = [method.select(by_draw[draw], env, num_envs) for draw in sorted(by_draw)]
    return _last_max([score for score in scores if score is not None])


def _last_max(scores: Sequence[Score]) -> Score | None:
    best = None
    for score in scores:
        if best is None or _order(score.validation) >= _order(best.validation):
            best = score
    return best


def _first_max(scores: Sequence[Score]) -> Score | None:
    return max(scores, key=lambda score: _order(score.validation), default=None)


def _order(value: float) -> float:
    return -inf if isnan(value) else value


def _single(runs: Sequence[CollectedRun], env: int) -> Sequence[Record]:
    """Return the records of the run that holds out this environment alone."""
    return next((run.records for run in runs if tuple(run.spec.test_envs) == (env,)), [])


def _regular(records: Sequence[Record]) -> Sequence[Record]:
    return [record for record in records if not record.final]


def _preferred(records: Sequence[Record]) -> Sequence[Record]:
    """Return the final record alone where there is one, else all."""
    return [record for record in records if record.final] or records


def _training_domain(record: Record, env: int) -> Score | None:
    held_out = [value for (other, split), value in record.accuracy.items() if split == "out" and other != env]
    test = record.accuracy.get((env, "in"))
    return None if test is None or not held_out else Score(fmean(held_out), test, record.step)


def _oracle(record: Record, env: int) -> Score | None:
    validation, test = record.accuracy.get((env, "out")), record.accuracy.get((env, "in"))
    return None if validation is None or test is None else Score(validation, test, record.step)


def _scores(records: Sequence[Record], env: int, score: Callable[[Record, int], Score | None]) -> list[Score]:
    return [found for record in records if (found := score(record, env)) is not None]


def _select_training_domain(runs: Sequence[CollectedRun], env: int, num_envs: int) -> Score | None:
    return _first_max(_scores(_preferred(_single(runs, env)), env, _training_domain))


def _select_oracle(runs: Sequence[CollectedRun], env: int, num_envs: int) -> Score | None:
    records = _preferred(_single(runs, env))
    return _first_max(_scores(records[-1:], env, _oracle))


def _select_leave_one_out(runs: Sequence[CollectedRun], env: int, num_envs: int) -> Score | None:
    """Validate a step by the runs that hold out one more environment: their accuracy there, averaged."""
    others = [other for other in range(num_envs) if other != env]
    pairs = {
        other: {record.step: record for record in _preferred(run.records)}
        for run in runs
        for other in others
        if tuple(run.spec.test_envs) == tuple(sorted((env, other)))
    }
    scores = []
    for record in _preferred(_single(runs, env)):
        matching = [pairs.get(other, {}).get(record.step) for other in others]
        accuracies = [
            found.accuracy.get((other, "in"))
            for other, found in zip(others, matching, strict=True)
            if found is not None
        ]
        complete = [value for value in accuracies if value is not None]
        if len(complete) == len(others) and (env, "in") in record.accuracy:
            scores.append(Score(fmean(complete), record.accuracy[env, "in"], record.step))
    return _first_max(scores)


def _select_swad_iid(runs: Sequence[CollectedRun], env: int, num_envs: int) -> Score | None:
    return _first_max(_scores(_regular(_single(runs, env)), env, _training_domain))


def _select_swad_last(runs: Sequence[CollectedRun], env: int, num_envs: int) -> Score | None:
    return _first_max(_scores(_regular(_single(runs, env))[-1:], env, _training_domain))


def _select_swad_oracle(runs: Sequence[CollectedRun], env: int, num_envs: int) -> Score | None:
    return _first_max(_scores(_regular(_single(runs, env)), env, _oracle))


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
