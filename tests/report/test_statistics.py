"""Statistics of a difference: held against hand calculation, against scipy, and against planted effects."""

import random

import numpy as np
import pytest
from scipy import stats

from dg_batchformer.catalog import DATASETS
from dg_batchformer.report.pairs import average, mean_difference, pair
from dg_batchformer.report.selection import Score
from dg_batchformer.report.statistics import (
    Outcomes,
    bootstrap_interval,
    count_outcomes,
    holm,
    sign_test_p,
    signed_rank_p,
)

NAMES = {name: facts.names for name, facts in DATASETS.items()}


def _scores(gains, base=0.5):
    """Return scores of rows A and B; B is above A by points for (dataset, env), one for each trial."""
    scores = {}
    for (dataset, env), points in gains.items():
        for trial, gain in enumerate(points):
            start = base + 0.01 * env + 0.003 * trial
            scores[dataset, "A", env, trial] = Score(0.9, start, 0)
            scores[dataset, "B", env, trial] = Score(0.9, start + gain / 100, 0)
    return scores


def _blocks(gains):
    return pair(_scores(gains), NAMES, "A", "B")


def _of(*points):
    """Return blocks of one trial each, on as many environments of as many datasets as it takes."""
    places = [(name, env) for name in ("VLCS", "PACS", "OfficeHome") for env in range(len(NAMES[name]))]
    return _blocks({place: [gain] for place, gain in zip(places, points, strict=False)})


def test_only_trials_that_both_rows_have_with_a_number_are_paired():
    scores = _scores({("PACS", 2): [1, 2, 3], ("VLCS", 0): [5, 5], ("PACS", 0): [1]})
    del scores["PACS", "A", 2, 0]
    scores["PACS", "B", 2, 1] = Score(0.9, float("nan"), 0)
    scores["PACS", "C", 3, 0] = Score(0.9, 0.9, 0)

    blocks = pair(scores, NAMES, "A", "B")

    assert [(block.dataset, block.environment, block.trials) for block in blocks] == [
        ("VLCS", "Caltech101", (0, 1)),
        ("PACS", "art_painting", (0,)),
        ("PACS", "photo", (2,)),
    ]
    assert blocks[2].differences == pytest.approx([3])
    assert pair(scores, NAMES, "A", "D") == []


def test_the_mean_is_over_environments_then_over_datasets():
    blocks = _blocks({**{("PACS", env): [0, 2] for env in range(4)}, ("VLCS", 1): [3]})

    assert mean_difference(blocks) == pytest.approx((1 + 3) / 2)
    assert average(blocks, [4, 1, 1, 1, 1]) == pytest.approx(2.5)


def test_signed_rank_is_wilcoxons():
    # ranks of losses sum to 6; 14 of the 64 subsets of 1..6 sum to at most 6, and as many to at least 15
    assert signed_rank_p(_of(1, 2, 3, 4, 5, -6)) == pytest.approx(28 / 64)
    assert signed_rank_p(_of(1, 2, 3, 4, 5, 6)) == pytest.approx(2 / 64)
    points = [0.4, -1.3, 2.2, 0.9, 3.1, 1.7, -0.2, 0.5]
    assert signed_rank_p(_of(*points)) == pytest.approx(stats.wilcoxon(points).pvalue)


def test_sign_test_is_of_wins_and_losses_alone():
    blocks = _of(1, 1, 1, 1, 1, 1, 1, -1, 0.04, -0.04)

    assert count_outcomes(blocks) == Outcomes(wins=7, ties=2, losses=1)
    assert sign_test_p(blocks) == pytest.approx(2 * (1 + 8) / 2**8)


def test_below_six_environments_there_is_no_p_value():
    assert signed_rank_p(_of(1, 2, 3, 4, 5)) is None
    assert sign_test_p(_of(1, 2, 3, 4, 5)) is None
    assert stats.binomtest(5, 5).pvalue > 0.05 > stats.binomtest(6, 6).pvalue


def test_rows_that_are_equal_up_to_rounding_errors_do_not_differ():
    blocks = _of(*[0] * 8)
    assert {block.difference for block in blocks} == {0}
    assert (signed_rank_p(blocks), sign_test_p(blocks), count_outcomes(blocks)) == (1, 1, (0, 8, 0))
    assert bootstrap_interval(blocks) == (0, 0)

    scores = {("PACS", row, 0, 0): Score(0.9, test, 0) for row, test in (("A", 0.3), ("B", 0.1 + 0.2))}
    almost = pair(scores, NAMES, "A", "B") * 6
    assert almost[0].difference != 0
    assert (signed_rank_p(almost), sign_test_p(almost)) == (1, 1)


def test_holm_multiplies_by_what_is_left_and_never_falls():
    assert holm([0.01, 0.04, 0.03, None]) == pytest.approx([0.03, 0.06, 0.06, None])
    assert holm([0.5, 0.9]) == [1, 1]
    assert holm([]) == []

    values = np.random.default_rng(1).uniform(size=30).tolist()
    corrected = holm(values)
    assert all(after >= before for before, after in zip(values, corrected, strict=True))
    assert [corrected[i] for i in np.argsort(values)] == sorted(corrected)


def test_exchanging_the_rows_changes_signs_only():
    scores = _scores(
        {("PACS", env): [1.5 * env - 1, 0.4, 2] for env in range(4)} | {("VLCS", 0): [1], ("VLCS", 3): [0, 2]}
    )
    forth, back = pair(scores, NAMES, "A", "B"), pair(scores, NAMES, "B", "A")

    low, high = bootstrap_interval(forth)
    assert bootstrap_interval(back) == pytest.approx((-high, -low))
    assert mean_difference(back) == pytest.approx(-mean_difference(forth))
    assert signed_rank_p(back) == signed_rank_p(forth)
    assert count_outcomes(back) == count_outcomes(forth)[::-1]


def test_the_order_of_runs_changes_nothing():
    scores = _scores({("PACS", env): [env, 1, 2] for env in range(4)} | {("VLCS", env): [1, -1] for env in range(4)})
    shuffled = list(scores.items())
    random.Random(3).shuffle(shuffled)

    blocks = pair(dict(shuffled), NAMES, "A", "B")

    assert blocks == pair(scores, NAMES, "A", "B")
    assert bootstrap_interval(blocks) == bootstrap_interval(pair(scores, NAMES, "A", "B"))


def test_an_interval_is_as_wide_as_the_spread_of_environments_makes_it():
    blocks = _blocks({("SVIRO", env): [env] for env in range(10)})

    low, high = bootstrap_interval(blocks)

    expected = 2 * 1.96 * np.std(range(10), ddof=1) / 10**0.5
    assert high - low == pytest.approx(expected, rel=0.03)  # drawing 10 of 10 would make it 5 % narrower
    assert (low + high) / 2 == pytest.approx(4.5, abs=0.1)


def test_datasets_with_one_environment_each_vary_among_each_other():
    low, high = bootstrap_interval(
        _blocks({(name, 0): [gain] for name, gain in (("VLCS", -4), ("PACS", 1), ("SVIRO", 6))})
    )

    assert (low, high) == pytest.approx((-4, 6))
    assert bootstrap_interval(_of(1)) is None


@pytest.mark.parametrize(("between", "within"), [(1, 1), (0.3, 1.5)])
def test_intervals_hold_a_planted_effect_about_as_often_as_they_say(between, within):
    rng, truth, times = np.random.default_rng(0), 1.3, 300
    held = 0
    for _ in range(times):
        gains = {
            (dataset, env): truth + between * rng.normal() + within * rng.normal(size=3)
            for dataset in ("VLCS", "PACS", "OfficeHome")
            for env in range(4)
        }
        low, high = bootstrap_interval(_blocks(gains), resamples=400)
        held += low <= truth <= high

    assert 0.91 <= held / times <= 0.99
