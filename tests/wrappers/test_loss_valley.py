import random
from math import nan
from statistics import fmean

import pytest

from dg_batchformer.wrappers.swad import loss_valley_weights

VALLEY = [2.0, 0.9, 0.6, 0.5, 0.45, 0.40, 0.35, 0.30, 0.31, 0.32, 0.33, 0.34, 0.35, 0.36, 0.37]


@pytest.mark.parametrize(
    ("losses", "units"),
    [
        ([2.0, 1.0, 0.30, 0.31, 0.32], [0, 1, 1, 2, 1]),
        ([0.30, 0.31, 0.32], [0, 1, 1]),
        (VALLEY + [0.5] * 8, [0] * 6 + [1, 2, 1, 1, 1, 1, 1, 1, 1] + [0] * 8),
        ([3.0, 2.0, 1.0], [0, 0, 1]),
        ([3.0, 2.0], [0, 1]),
        ([1.0], [1]),
    ],
)
def test_the_released_bookkeeping(losses, units):
    assert loss_valley_weights(losses) == pytest.approx([unit / sum(units) for unit in units])


@pytest.mark.parametrize(
    ("losses", "units"),
    [
        ([2.0, 1.0, 0.30, 0.31, 0.32], [0, 0, 1, 1, 1]),
        (VALLEY + [0.5] * 8, [0] * 7 + [1] * 8 + [0] * 8),
        ([0.30, 0.31, 0.32, 0.9, 0.31, 0.9], [1, 1, 1, 1, 1, 1]),
        ([0.30, 0.31, 0.32, *[0.9] * 5, 0.31, *[0.9] * 7], [1] * 9 + [0] * 7),
        ([3.0, 2.0, 1.0], [0, 0, 1]),
    ],
)
def test_the_clean_variant_uses_every_segment_of_the_valley_once(losses, units):
    assert loss_valley_weights(losses, mode="clean") == pytest.approx([unit / sum(units) for unit in units])


def test_the_clean_variant_ends_with_the_valley_even_within_its_first_window():
    assert loss_valley_weights([0.3, 0.5, 0.6, 0.3, 0.9, 0.9, 0.9], 4, 2, 0.1, "clean") == [1, 0, 0, 0, 0, 0, 0]


def _clean_by_definition(losses, n_converge, n_tolerance, ratio, iterates):
    """Find the first window that starts with its lowest loss; end before ``n_tolerance`` losses above its threshold."""
    for first in range(len(losses) - n_converge + 1):
        window = losses[first : first + n_converge]
        if window[0] == min(window):
            break
    else:
        return [float(place == len(losses) - 1) for place in range(len(losses))]
    above = [loss > fmean(window) * (1 + ratio) for loss in losses]
    deaths = [end for end in range(first, len(losses) - n_tolerance + 1) if all(above[end : end + n_tolerance])]
    shares = [count * (first <= place < min([*deaths, len(losses)])) for place, count in enumerate(iterates)]
    return [share / sum(shares) for share in shares]


@pytest.mark.parametrize("seed", range(20))
def test_the_clean_variant_equals_its_definition_on_random_curves(seed):
    rng = random.Random(seed)
    for _ in range(20):
        losses = [rng.choice([0.3, 0.31, 0.35, 0.5, 0.6, 0.9]) for _ in range(rng.randint(1, 25))]
        asked = rng.randint(1, 5), rng.randint(1, 7), rng.choice([0.1, 0.2, 0.3])
        iterates = [rng.randint(1, 5) for _ in losses]

        shares = loss_valley_weights(losses, *asked, "clean", iterates)

        assert shares == pytest.approx(_clean_by_definition(losses, *asked, iterates), abs=1e-9)


def test_the_clean_variant_weights_segments_by_iterates():
    weights = loss_valley_weights([0.3, 0.31, 0.32], mode="clean", iterates=[1, 20, 19])

    assert weights == pytest.approx([1 / 40, 20 / 40, 19 / 40])


@pytest.mark.parametrize("mode", ["exact", "clean"])
def test_nan_never_converges_and_ends_a_valley(mode):
    assert loss_valley_weights([0.3, nan, nan, nan], mode=mode) == [0, 0, 0, 1]
    dead = loss_valley_weights([0.3, 0.31, 0.32, *[nan] * 9], mode=mode)
    assert sum(dead) == pytest.approx(1)
    assert dead[3:] == [0] * 9


@pytest.mark.parametrize("mode", ["exact", "clean"])
@pytest.mark.parametrize("n_tolerance", [1, 2, 3, 6])
def test_shares_sum_to_one(mode, n_tolerance):
    for cut in range(1, len(VALLEY)):
        assert sum(loss_valley_weights(VALLEY[:cut], 3, n_tolerance, mode=mode)) == pytest.approx(1)


def test_losses_and_counts_have_equal_lengths():
    with pytest.raises(ValueError, match="2 losses with 1 counts"):
        loss_valley_weights([1.0, 2.0], iterates=[1])
