"""Statistics of a difference, compared with calculations by hand, scipy and planted effects."""

import random
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from dg_batchformer.catalog.datasets import DATASETS
from dg_batchformer.results.selection import Score
from dg_batchformer.stats.pairs import average, effects, mean_difference, pair
from dg_batchformer.stats.statistics import Outcomes, count_outcomes, holm, mean_interval, sign_test_p, signed_rank_p

NAMES = {name: facts.names for name, facts in DATASETS.items()}
ITSELF = {name: name for name in NAMES}  # datasets without settings


def _scores(gains, base=0.5):
    """Return scores of rows A and B, with B above A by the points of (dataset, env), one per trial."""
    scores = {}
    for (dataset, env), points in gains.items():
        for trial, gain in enumerate(points):
            start = base + 0.01 * env + 0.003 * trial
            scores[dataset, "A", env, trial] = Score(0.9, start, 0)
            scores[dataset, "B", env, trial] = Score(0.9, start + gain / 100, 0)
    return scores


def _blocks(gains):
    return pair(_scores(gains), NAMES, ITSELF, "A", "B")


def _of(*points):
    """Return blocks of one trial each, on as many environments of as many datasets as it takes."""
    places = [(name, env) for name in ("VLCS", "PACS", "OfficeHome") for env in range(len(NAMES[name]))]
    return _blocks({place: [gain] for place, gain in zip(places, points, strict=False)})


def test_only_trials_with_finite_scores_of_both_rows_are_paired():
    scores = _scores({("PACS", 2): [1, 2, 3], ("VLCS", 0): [5, 5], ("PACS", 0): [1]})
    del scores["PACS", "A", 2, 0]
    scores["PACS", "B", 2, 1] = Score(0.9, float("nan"), 0)
    scores["PACS", "C", 3, 0] = Score(0.9, 0.9, 0)

    blocks = pair(scores, NAMES, ITSELF, "A", "B")

    assert [(block.benchmark, block.environment, block.trials) for block in blocks] == [
        ("VLCS", "Caltech101", (0, 1)),
        ("PACS", "art_painting", (0,)),
        ("PACS", "photo", (2,)),
    ]
    assert blocks[2].differences == pytest.approx([3])
    assert pair(scores, NAMES, ITSELF, "A", "D") == []


def test_the_mean_is_over_environments_then_over_datasets():
    blocks = _blocks({**{("PACS", env): [0, 2] for env in range(4)}, ("VLCS", 1): [3]})

    assert mean_difference(blocks) == pytest.approx((1 + 3) / 2)
    assert average(blocks, [4, 1, 1, 1, 1]) == pytest.approx(2.5)


def test_signed_rank_equals_wilcoxons_test():
    # ranks of losses sum to 6; 14 of the 64 subsets of 1..6 sum to at most 6, and as many to at least 15
    assert signed_rank_p(_of(1, 2, 3, 4, 5, -6)) == pytest.approx(28 / 64)
    assert signed_rank_p(_of(1, 2, 3, 4, 5, 6)) == pytest.approx(2 / 64)
    points = [0.4, -1.3, 2.2, 0.9, 3.1, 1.7, -0.2, 0.5]
    assert signed_rank_p(_of(*points)) == pytest.approx(stats.wilcoxon(points).pvalue)


def test_the_sign_test_counts_only_wins_and_losses():
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
    assert mean_interval(_blocks({("PACS", env): [0, 0] for env in range(4)})) == (0, 0)

    scores = {("PACS", row, 0, 0): Score(0.9, test, 0) for row, test in (("A", 0.3), ("B", 0.1 + 0.2))}
    [almost] = pair(scores, NAMES, ITSELF, "A", "B")
    almost = [replace(almost, environment=str(env)) for env in range(6)]
    assert almost[0].difference != 0
    assert (signed_rank_p(almost), sign_test_p(almost)) == (1, 1)


def test_holm_multiplies_by_the_number_of_remaining_tests_and_is_monotonic():
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
    forth, back = pair(scores, NAMES, ITSELF, "A", "B"), pair(scores, NAMES, ITSELF, "B", "A")

    low, high = mean_interval(forth)
    assert mean_interval(back) == pytest.approx((-high, -low))
    assert mean_difference(back) == pytest.approx(-mean_difference(forth))
    assert signed_rank_p(back) == signed_rank_p(forth)
    assert count_outcomes(back) == count_outcomes(forth)[::-1]


def test_the_order_of_runs_changes_nothing():
    scores = _scores({("PACS", env): [env, 1, 2] for env in range(4)} | {("VLCS", env): [1, -1] for env in range(4)})
    shuffled = list(scores.items())
    random.Random(3).shuffle(shuffled)

    blocks = pair(dict(shuffled), NAMES, ITSELF, "A", "B")

    assert blocks == pair(scores, NAMES, ITSELF, "A", "B")
    assert mean_interval(blocks) == mean_interval(pair(scores, NAMES, ITSELF, "A", "B"))


def test_an_interval_adds_two_t_intervals_in_quadrature():
    # environment means 1, 2, 3, 6: variance 14/3, over 4 environments 7/6, t(3) = 3.182
    # trials deviate by -1, 0, 1: variance 1, over 3 trials 1/3, t(2) = 4.303
    blocks = _blocks({("PACS", env): [mean - 1, mean, mean + 1] for env, mean in enumerate((1, 2, 3, 6))})

    low, high = mean_interval(blocks)

    half = (7 / 6 * 3.182446**2 + 1 / 3 * 4.302653**2) ** 0.5
    assert (low, high) == pytest.approx((3 - half, 3 + half), abs=1e-5)


def test_environments_vary_within_their_dataset():
    # PACS and VLCS each have a variance of 1/2 over 2 environments, so 1/4 of the dataset's mean, 1/8 of the whole
    # mean's, with 2 degrees of freedom by Welch and Satterthwaite; t(2) = 4.303. Trials are equal.
    gains = {("PACS", 0): [0, 0], ("PACS", 1): [1, 1], ("VLCS", 0): [10, 10], ("VLCS", 1): [11, 11]}

    low, high = mean_interval(_blocks(gains))

    assert high - low == pytest.approx(2 * 4.302653 * (1 / 8) ** 0.5, abs=1e-5)


def test_datasets_with_one_environment_each_vary_among_each_other():
    places = (("VLCS", -4), ("PACS", 1), ("SVIRO", 6))
    low, high = mean_interval(_blocks({(name, 0): [gain, gain] for name, gain in places}))

    assert high - low == pytest.approx(2 * 4.302653 * (25 / 3) ** 0.5, abs=1e-4)


def _in_settings(gains):
    """Return blocks of (setting of PACS, env)."""
    scores = _scores({(f"PACS, {setting}", env): points for (setting, env), points in gains.items()})
    environments = {benchmark: NAMES["PACS"] for benchmark, *_ in scores}
    return pair(scores, environments, dict.fromkeys(environments, "PACS"), "A", "B")


def test_an_environment_in_several_settings_counts_once():
    gains = {env: [env, env + 2.0] for env in range(3)}
    once = _blocks({("PACS", env): points for env, points in gains.items()})
    repeated = _in_settings({(setting, env): points for setting in "abc" for env, points in gains.items()})
    shifted = _in_settings(
        {(setting, env): [point + shift for point in points] for setting, shift in (("a", -5), ("b", 5))
         for env, points in gains.items()}
    )  # fmt: skip

    assert mean_interval(repeated) == pytest.approx(mean_interval(once))
    assert mean_interval(shifted) == pytest.approx(mean_interval(once))
    assert count_outcomes(repeated) == count_outcomes(once) == Outcomes(3, 0, 0)
    assert signed_rank_p(repeated) is None
    assert sign_test_p(repeated) is None


def test_settings_of_one_environment_give_no_interval():
    assert mean_interval(_in_settings({(setting, 0): [1.0, 2.0] for setting in "abc"})) is None


def test_an_environment_missing_from_a_setting_weighs_as_in_the_mean():
    # weights: 1/4 in setting a, 1/2 in b; art_painting has 3/4 of the mean, cartoon 1/4
    blocks = _in_settings({("a", 0): [1.0, 1.0], ("a", 1): [5.0, 5.0], ("b", 0): [4.0, 4.0]})

    assert [(effect.environment, effect.weight) for effect in effects(blocks)] == [
        ("art_painting", pytest.approx(0.75)),
        ("cartoon", pytest.approx(0.25)),
    ]
    assert [effect.difference for effect in effects(blocks)] == pytest.approx([3.0, 5.0])
    assert mean_difference(blocks) == pytest.approx(0.75 * 3 + 0.25 * 5)


def test_an_interval_needs_two_environments_and_two_trials():
    assert mean_interval([]) is None
    assert mean_interval(_blocks({("PACS", 0): [1, 2, 3]})) is None
    assert mean_interval(_blocks({("PACS", env): [env] for env in range(4)})) is None
    assert mean_interval(_blocks({("PACS", env): [env, 1] for env in range(2)})) is not None


def test_an_environment_with_one_trial_widens_the_interval():
    gains = {("PACS", env): [0.0, 1.0, 2.0] for env in range(4)}
    whole, thin = _blocks(gains), _blocks({**gains, ("PACS", 3): [1.0]})

    def width(blocks):
        low, high = mean_interval(blocks)
        return high - low

    # the trials' shares in the mean are 1/4 and three, once four, twelfths: squares sum to 3/8 instead of 1/3
    assert width(thin) / width(whole) == pytest.approx((3 / 8 / (1 / 3)) ** 0.5)


def test_intervals_of_a_family_are_wider_than_one():
    blocks = _blocks({("PACS", env): [env, 1, 2] for env in range(4)})

    (low, high), (lowest, highest) = mean_interval(blocks), mean_interval(blocks, family=5)

    assert lowest < low < high < highest


@pytest.mark.parametrize(
    ("datasets", "between", "shared", "noise"),
    [(("PACS",), 1, 0, 1), (("PACS",), 0, 2, 1), (("PACS", "VLCS", "OfficeHome"), 0.5, 1, 0.5)],
    ids=["environments vary", "trials vary", "both"],
)
def test_intervals_cover_a_planted_effect_at_their_nominal_rate(datasets, between, shared, noise):
    rng, truth, times = np.random.default_rng(0), 1.3, 300
    held = 0
    for _ in range(times):
        trials = shared * rng.normal(size=3)
        gains = {
            (dataset, env): truth + between * rng.normal() + trials + noise * rng.normal(size=3)
            for dataset in datasets
            for env in range(4)
        }
        low, high = mean_interval(_blocks(gains))
        held += low <= truth <= high

    assert held / times >= 0.93
