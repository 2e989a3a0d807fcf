import pytest

from dg_batchformer.text.spelling import is_number, one_spelling, twins

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize("name", ["2", "01", "-1", "+1", "0.5", "1e3"])
def test_texts_that_read_as_numbers_are_numbers(name):
    assert is_number(name)
    assert not is_number(f"site {name}")


def test_a_name_in_two_unicode_forms_has_one_spelling_and_others_keep_theirs():
    assert one_spelling([COMPOSED, DECOMPOSED, "a"]) == {COMPOSED: COMPOSED, DECOMPOSED: COMPOSED, "a": "a"}
    assert one_spelling([DECOMPOSED]) == {DECOMPOSED: DECOMPOSED}


def test_names_that_differ_only_in_case_are_found():
    assert twins(["Cat", "dog", "cat", "cat"]) == [["Cat", "cat"]]
