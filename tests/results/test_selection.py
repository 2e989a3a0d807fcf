"""DomainBed's own examples of selection, and SWAD's rows."""

import pytest

from dg_batchformer.results.collection import Candidate, CollectedRun
from dg_batchformer.results.evaluations import Evaluations
from dg_batchformer.results.runs import RunRecords
from dg_batchformer.results.selection import METHODS, best_draw
from dg_batchformer.storage.folders import State


def _record(step, final=False, **accuracy):
    return {"step": step, "final": final, **{f"{key}_acc": value for key, value in accuracy.items()}}


def _run(envs, *records, draw=0, algorithm="ERM", state=State.DONE):
    return CollectedRun(
        algorithm, "PACS", algorithm, tuple(envs), 0, draw, state,
        RunRecords({"protocol": "quick"}, Evaluations.of(records)),
    )  # fmt: skip


def _select(method, runs, env=0, num_envs=3):
    score = METHODS[method].select(runs, env, num_envs)
    return None if score is None else (pytest.approx(score.validation), pytest.approx(score.test), score.step)


def test_training_domain_selects_the_step_with_the_best_mean_validation():
    first = _record(0, env0_in=0.1, env1_out=0.6, env2_out=0.7)
    second = _record(1, env0_in=0.3, env1_out=0.7, env2_out=0.8)

    assert _select("training-domain", [_run([0], first, second)]) == (0.75, 0.3, 1)


def test_the_earliest_of_equal_steps_is_selected():
    records = [_record(step, env0_in=test, env1_out=0.5) for step, test in ((0, 0.1), (300, 0.2))]

    assert _select("training-domain", [_run([0], *records)]) == (0.5, 0.1, 0)


def test_leave_one_out_validates_by_the_pairs():
    single = _run([0], _record(0, env0_in=0.1))
    pairs = [_run([0, 1], _record(0, env1_in=0.5)), _run([0, 2], _record(0, env2_in=0.6))]

    assert _select("leave-one-domain-out", [single, *pairs]) == (0.55, 0.1, 0)
    assert _select("leave-one-domain-out", [single, pairs[0]]) is None


def test_oracle_selects_the_last_step():
    records = [_record(0, env0_out=0.7, env0_in=0.75), _record(1, env0_out=0.6, env0_in=0.65)]

    assert _select("oracle", [_run([0], *records)]) == (0.6, 0.65, 1)


def test_of_equal_draws_the_largest_hparams_seed_wins():
    draws = {
        Candidate(draw): [_run([0], _record(0, env0_in=test, env1_out=0.5), draw=draw)]
        for draw, test in ((0, 0.11), (1, 0.22), (2, 0.33))
    }
    assert best_draw(METHODS["training-domain"], draws, 0, 3)[1].test == 0.33

    draws[Candidate(1)] = [_run([0], _record(0, env0_in=0.9, env1_out=0.8), draw=1)]
    draws[Candidate(2)] = [_run([0], _record(0, env0_in=0.9, env1_out=float("nan")), draw=2)]
    assert best_draw(METHODS["training-domain"], draws, 0, 3)[1].validation == 0.8


def test_the_model_that_a_method_returns_is_preferred_and_swads_rows_ignore_it():
    run = _run(
        [0],
        _record(0, env0_in=0.1, env0_out=0.9, env1_out=0.9),
        _record(5, env0_in=0.2, env0_out=0.3, env1_out=0.5),
        _record(6, final=True, env0_in=0.8, env0_out=0.7, env1_out=0.4),
        algorithm="SWAD",
    )

    assert _select("training-domain", [run])[1] == 0.8
    assert _select("oracle", [run])[1] == 0.8
    assert _select("swad-iid", [run])[1] == 0.1
    assert _select("swad-last", [run])[1] == 0.2
    assert _select("swad-oracle", [run])[1] == 0.1


@pytest.mark.parametrize("algorithm", ["SWAD+BF", "IIDMax", "SMA+SAM", "EMA"])
@pytest.mark.parametrize("method", METHODS)
def test_only_swads_rows_select_from_a_diverged_run_that_never_averaged(method, algorithm):
    record = _record(0, env0_in=0.1, env0_out=0.9, env1_out=0.9)
    runs = [_run(envs, record, algorithm=algorithm, state=State.DIVERGED) for envs in ([0], [0, 1], [0, 2])]

    assert (_select(method, runs) is not None) is (method in ("swad-iid", "swad-last", "swad-oracle"))


def test_a_score_has_the_accuracy_on_training_domains_whatever_the_selection():
    run = _run([0], _record(0, env0_in=0.1, env0_out=0.9, env1_out=0.6, env2_out=0.8))

    for method in ("training-domain", "oracle", "swad-iid", "swad-last", "swad-oracle"):
        assert METHODS[method].select([run], 0, 3).in_domain == pytest.approx(0.7)


@pytest.mark.parametrize("method", METHODS)
def test_runs_without_records_select_nothing(method):
    assert _select(method, [_run([0])]) is None
    assert _select(method, [_run([1], _record(0, env0_in=0.1))]) is None
