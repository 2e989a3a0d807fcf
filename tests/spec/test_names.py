import pytest

from dg_batchformer.algorithms import get_algorithm_class
from dg_batchformer.errors import InputError
from dg_batchformer.spec.names import canonical_name, split_name, written_name


@pytest.mark.parametrize(
    ("name", "canonical", "base"),
    [
        ("ERM", "ERM", "ERM"),
        ("BF", "BF", "ERM"),
        ("ERM+BF", "BF", "ERM"),
        ("SWAD+ERM+BF", "BF+SWAD", "ERM"),
        ("SWAD + CORAL + BF", "BF+CORAL+SWAD", "CORAL"),
        ("BF+SWAD+CORAL", "BF+CORAL+SWAD", "CORAL"),
    ],
)
def test_every_spelling_has_one_canonical_name_and_one_class(name, canonical, base):
    assert canonical_name(name) == canonical
    assert split_name(name)[0] == base
    assert get_algorithm_class(name) is get_algorithm_class(canonical)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("SWAD+", "empty part"),
        ("BF+ERM+BF", "names BF twice"),
        ("CORAL+IRM", "joins CORAL and IRM"),
        ("CORRAL+BF", "did you mean 'CORAL'"),
        ("SWAD+IIDMax", "both act on the weights"),
    ],
)
def test_a_meaningless_name_is_refused_with_the_reason(name, message):
    with pytest.raises(InputError, match=message):
        get_algorithm_class(name)


def test_wrappers_are_ordered_from_the_inside_out_whatever_the_spelling():
    composed = get_algorithm_class("SWAD+CORAL+BF")

    assert composed.__name__ == "BF+CORAL+SWAD"
    assert composed.inner_class.inner_class.__name__ == "CORAL"
    assert composed.acts_on == "weights"


@pytest.mark.parametrize("written", ["ERM", "ERM+BF", "SWAD+BF", "CORAL", "SWAD+CORAL+BF", "EMA", "ERM+BF+MixStyle"])
def test_a_canonical_name_can_be_written_as_in_papers_again(written):
    assert written_name(canonical_name(written)) == written
