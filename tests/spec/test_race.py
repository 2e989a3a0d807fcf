"""Races: the rule of asynchronous successive halving, and which runs are compared."""

from math import nan

import pytest

from dg_batchformer.errors import InputError
from dg_batchformer.results.race import standing
from dg_batchformer.spec.race import Race, brackets
from dg_batchformer.spec.run import RunRequest

HALF = Race((4, 8), 0.5)


@pytest.mark.parametrize(
    ("validation", "others", "rank", "continues"),
    [
        (0.1, [], 1, True),  # nobody waits
        (0.1, [0.2], 2, False),
        (0.2, [0.1], 1, True),
        (0.2, [0.2], 1, True),  # equal runs continue
        (0.2, [0.3, 0.1], 2, False),  # 1 of 3
        (0.2, [0.3, 0.1, 0.0], 2, True),  # 2 of 4
        (nan, [0.1, nan], 2, False),
        (0.1, [nan, nan], 1, True),
    ],
)
def test_a_run_continues_if_it_is_among_the_best_that_have_reached_the_rung(validation, others, rank, continues):
    place = standing(HALF, 4, validation, others)

    assert (place.step, place.rank, place.of, place.continues) == (4, rank, len(others) + 1, continues)


def test_the_number_that_continues_is_rounded_down_whatever_floats_make_of_it():
    others = [0.9] * 28 + [0.1] * 71

    assert standing(Race((4,), 0.29), 4, 0.5, others).continues


def test_the_share_of_updates_that_a_race_leaves_to_a_run():
    assert Race((49, 99), 0.5).share_of(200) == pytest.approx((50 + 50 / 2 + 100 / 4) / 200)


def test_runs_race_in_their_place_and_those_of_several_rows_do_not():
    found = brackets(HALF, [("a", "1"), ("a", "2"), ("a", "3"), ("b", "3"), ("b", "4"), ("c", "5")])

    assert found["1"] is found["2"]
    assert found["1"].runs == ("1", "2", "3")
    assert found.keys() == {"1", "2", "4"}


def test_rungs_must_be_evaluations_before_the_last_one():
    spec = RunRequest(dataset="Toy", algorithm="ERM", test_envs=(0,), steps=9, checkpoint_freq=4).resolve()
    Race((0, 4)).check(spec)

    for rung in (3, 8, 12):
        with pytest.raises(InputError, match=f"step {rung} cannot be a rung .* give multiples of 4 below 8"):
            Race((0, rung)).check(spec)
