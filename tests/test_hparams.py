import numpy as np
import pytest

from dg_batchformer.errors import InputError
from dg_batchformer.hparams import HParam, plain_number


def test_a_draw_does_not_depend_on_other_hparams_and_is_plain():
    hparam = HParam(2, lambda rng: rng.choice([1, 2]))

    assert hparam.sample("n_meta_test", 7) == hparam.sample("n_meta_test", 7)
    assert type(hparam.sample("n_meta_test", 7)) is int
    assert type(HParam(0.0, lambda rng: rng.choice([0.0, 0.5])).sample("x", 1)) is float
    assert isinstance(np.float64(1.0), float)  # why the exact type is compared


@pytest.mark.parametrize(
    ("hparam", "given", "parsed"),
    [
        (HParam(1.0), "5e-5", 5e-5),
        (HParam(1.0), 2, 2.0),
        (HParam(4), 8.0, 8),
        (HParam("none"), "none", "none"),
        (HParam(True), False, False),
    ],
)
def test_valid_values_are_converted_to_the_type_of_the_default(hparam, given, parsed):
    assert hparam.parse("x", given) == parsed
    assert type(hparam.parse("x", given)) is type(hparam.default)


@pytest.mark.parametrize(
    ("hparam", "given", "message"),
    [
        (HParam(4), 2.5, "x must be a whole number, got 2.5"),
        (HParam(4), 1e30, "x must be a whole number, got 1e\\+30"),
        (HParam(True), 1, "x must be true or false, got 1"),
        (HParam(1.0), "much", "x must be a number, got 'much'"),
        (HParam(1.0), float("nan"), "x must be a number"),
        (HParam("a"), 3, "x must be text"),
        (HParam(0.5, low=0, high=1), 1.5, "x is 1.5; allowed: 0 to 1"),
        (HParam("joint", choices=("joint", "sample")), "jiont", "did you mean 'joint'"),
    ],
)
def test_invalid_values_are_answered_with_what_is_allowed(hparam, given, message):
    with pytest.raises(InputError, match=message):
        hparam.parse("x", given)


def test_numbers_that_yaml_reads_as_text_become_numbers():
    assert [plain_number(value) for value in ("5e-5", "3", "resnet18", 4, True)] == [5e-5, 3, "resnet18", 4, True]
