import pytest

from dg_batchformer.catalog.datasets import (
    DATASETS,
    DOMAINBED_DATASETS,
    DOMAINBED_ORDER,
    dataset_facts,
)
from dg_batchformer.catalog.wrappers import averaging_wrappers
from dg_batchformer.datasets import DATASETS as CLASSES
from dg_batchformer.datasets import get_dataset_class, num_environments
from dg_batchformer.errors import InputError
from dg_batchformer.registry import ALGORITHMS, WRAPPERS


@pytest.mark.parametrize("given", [3, "3", "S", "s", "sketch", "Sketch"])
def test_an_environment_is_selected_by_index_label_or_name(given):
    assert dataset_facts("PACS").environment_index(given) == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [("sktch", "did you mean 'sketch'"), (4, "out of range: PACS has 0 art_painting"), (-1, "out of range")],
)
def test_an_unknown_environment_is_answered_with_the_known_ones(given, message):
    with pytest.raises(InputError, match=message):
        dataset_facts("PACS").environment_index(given)


def test_folders_are_in_the_order_that_domainbed_finds_them():
    for facts in DATASETS.values():
        if facts.folder and facts.layout.startswith("<environment>/<class>"):
            assert list(facts.names) == sorted(facts.names)


def test_domainbeds_datasets_come_in_its_order():
    spawrious = [f"Spawrious{kind}_{level}" for kind in ("O2O", "M2M") for level in ("easy", "medium", "hard")]
    small = ["Debug28", "Debug224", "ColoredMNIST", "RotatedMNIST"]
    folders = ["VLCS", "PACS", "OfficeHome", "TerraIncognita", "DomainNet", "SVIRO"]

    assert list(DOMAINBED_DATASETS) == [*small, *folders, "WILDSCamelyon", "WILDSFMoW", *spawrious]
    assert [name for name in DATASETS if name in DOMAINBED_DATASETS] == list(DOMAINBED_DATASETS)


def test_an_exact_name_comes_before_another_spelling():
    facts = dataset_facts("Mine", ("Day", "day", "fog"))

    assert [facts.environment_index(given) for given in ("day", "Day", "FOG", "1")] == [1, 0, 2, 1]
    with pytest.raises(InputError, match="'DAY' of Mine is ambiguous: 'Day' or 'day'"):
        facts.environment_index("DAY")


def test_with_numbers_as_names_a_typed_number_is_a_name_and_an_int_an_index():
    facts = dataset_facts("Sites", ("1", "10", "2", "-3"))

    assert [facts.environment_index(name) for name in facts.names] == [0, 1, 2, 3]
    assert [facts.environment_index(env) for env in range(4)] == [0, 1, 2, 3]
    for given in ("0", "3", "01", "-1"):
        with pytest.raises(InputError, match=r"unknown environment of Sites .*1, 10, 2, -3; a number is a name here"):
            facts.environment_index(given)


def test_a_known_dataset_keeps_its_indices_beside_names_that_are_numbers():
    facts = dataset_facts("RotatedMNIST")

    assert [facts.environment_index(given) for given in ("0", "15", "1", "75", "5")] == [0, 1, 1, 5, 5]


@pytest.mark.parametrize("names", [("1", "2", "3"), ("a", "b"), ("01", "010", "1"), ("-1", "+1", "é"), ("0.5", "no")])
def test_what_is_printed_for_an_environment_selects_it_when_typed(names):
    for facts in (dataset_facts("Mine", names), *DATASETS.values()):
        envs = range(len(facts.names))
        assert [facts.environment_index(facts.typed(env)) for env in envs] == list(envs)


def test_two_unicode_forms_of_an_environment_are_one_name():
    composed, decomposed = "caf\u00e9", "cafe\u0301"

    for here, typed in ((composed, decomposed), (decomposed, composed)):
        assert dataset_facts("Mine", ("bar", here)).environment_index(typed) == 1


def test_every_dataset_that_can_be_loaded_has_facts():
    assert set(CLASSES) <= set(DATASETS)
    assert num_environments("TerraIncognita") == 4
    with pytest.raises(InputError, match="did you mean 'PACS'"):
        get_dataset_class("PAC")


def test_the_wrappers_that_return_another_model_are_those_that_act_on_weights():
    assert set(averaging_wrappers()) == {name for name in WRAPPERS if WRAPPERS[name].acts_on == "weights"}


def test_every_algorithm_of_domainbed_exists():
    assert set(DOMAINBED_ORDER) <= set(ALGORITHMS)
