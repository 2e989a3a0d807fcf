"""Which images of a class and environment an imbalance keeps, counted by hand; and how one is spelled."""

import pytest

from dg_batchformer.errors import InputError
from dg_batchformer.spec.imbalance import Thresholds, parse_imbalance
from dg_batchformer.spec.run import RunRequest, RunSpec

EVEN = {0: [100] * 3, 2: [100] * 3}


@pytest.mark.parametrize(
    ("given", "spelled"),
    [
        ("long_tail:50", "long_tail:50"),
        (" long_tail:50.0:same", "long_tail:50"),
        ("step:2.5:balanced:reversed", "step:2.5:reversed:balanced"),
        ("natural:balanced", "natural:balanced"),
        ("TotalHeavyTail", "TotalHeavyTail"),
    ],
)
def test_an_imbalance_has_one_spelling_which_names_the_run(given, spelled):
    assert str(parse_imbalance(given)) == spelled
    assert (
        RunRequest(dataset="PACS", imbalance=given).resolve().id
        == RunRequest(dataset="PACS", imbalance=spelled).resolve().id
    )


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("longtail:5", r"unknown imbalance 'longtail'; did you mean 'long_tail'"),
        ("long_tail", r"needs a ratio of at least 1 after long_tail, such as long_tail:50"),
        ("step:0.5", r"needs a ratio of at least 1"),
        ("domain:inf", r"needs a ratio of at least 1"),
        ("long_tail:5:up", r"unknown part of imbalance 'long_tail:5:up': 'up'"),
        ("long_tail:5:drawn:reversed", r"has two orders; give one"),
        ("long_tail:5:balanced:balanced", r"has a part twice"),
        ("long_tail:5:", r"has an empty part; remove a colon"),
        ("natural:50", r"unknown part .* 'natural:50': '50'"),
        ("Duality:balanced", r"Duality is published as it is"),
    ],
)
def test_what_is_no_imbalance_is_refused(given, sentence):
    with pytest.raises(InputError, match=sentence):
        parse_imbalance(given)


def test_a_run_without_imbalance_is_what_it_was():
    spec = RunRequest(dataset="PACS").resolve()

    assert "imbalance" not in spec.as_dict()
    assert spec.id == "bd68ebcc8d8c98da"
    assert RunRequest(dataset="PACS", imbalance="natural").resolve().id != spec.id
    assert RunSpec.from_dict(
        RunRequest(dataset="PACS", imbalance="step:5").resolve().as_dict()
    ).imbalance == parse_imbalance("step:5")


def test_a_long_tail_decays_exponentially_from_the_most_frequent_class():
    counts = {0: [10, 1000, 100], 2: [10, 500, 100]}

    assert parse_imbalance("long_tail:100").kept(counts, 0) == {0: [10, 1000, 100], 2: [5, 500, 50]}
    assert parse_imbalance("long_tail:4").kept(EVEN, 0) == {0: [100, 50, 25], 2: [100, 50, 25]}


def test_the_order_of_classes_is_reversed_in_every_other_environment_or_drawn_for_each():
    assert parse_imbalance("long_tail:4:reversed").kept(EVEN, 0) == {0: [100, 50, 25], 2: [25, 50, 100]}
    drawn = [
        parse_imbalance("long_tail:4:drawn").kept({env: [100] * 3 for env in range(4)}, seed) for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(map(tuple, drawn[0].values()))) > 1
    assert all(sorted(images) == [25, 50, 100] for images in drawn[0].values())


def test_a_step_thins_the_second_half_of_the_classes():
    assert parse_imbalance("step:10").kept(EVEN, 0) == {0: [100, 100, 10], 2: [100, 100, 10]}


def test_environments_differ_in_size_with_the_same_share_of_each_class():
    counts = {0: [30, 60], 1: [100, 200], 3: [50, 100]}

    assert parse_imbalance("domain:4").kept(counts, 0) == {0: [25, 50], 1: [100, 200], 3: [50, 100]}
    assert parse_imbalance("domain:1").kept({0: [10, 30], 1: [20, 60]}, 0) == {0: [10, 30], 1: [10, 30]}
    assert parse_imbalance("domain:2:reversed").kept({0: [10, 30], 1: [20, 60]}, 0) == {0: [10, 30], 1: [5, 15]}
    with pytest.raises(InputError, match="makes environments differ in size, and Toy is trained on one"):
        RunRequest(dataset="Toy", train_envs=[0], imbalance="domain:4").resolve()


def test_every_class_that_is_there_keeps_an_image():
    assert parse_imbalance("long_tail:1000").kept({0: [50, 40, 30, 0]}, 0) == {0: [50, 1, 1, 0]}


def test_few_medium_and_many_are_told_by_the_mean_over_environments():
    counts = {0: [300, 30, 21, 19, 0], 1: [101, 18, 19, 19, 0]}

    assert Thresholds(100, 20).shots(counts) == {"many": [0], "medium": [1, 2], "few": [3]}


@pytest.mark.parametrize(
    ("dataset", "test_env", "imbalance", "thresholds"),
    [
        ("OfficeHome", 0, "long_tail:10", (60, 20)),
        ("PACS", 0, "natural", (100, 20)),
        ("PACS", 3, "Cross", (120, 30)),
        ("VLCS", 1, "Duality", (100, 20)),
    ],
)
def test_thresholds_are_those_of_the_dataset_or_of_the_published_setting(dataset, test_env, imbalance, thresholds):
    assert parse_imbalance(imbalance).thresholds(dataset, [test_env]) == thresholds


def test_published_settings_are_refused_where_nothing_is_published():
    with pytest.raises(InputError, match="TotalHeavyTail is published for PACS, VLCS, OfficeHome, not for Shapes"):
        RunRequest(dataset="Shapes", imbalance="TotalHeavyTail").resolve()
    with pytest.raises(InputError, match="idg is published for PACS, VLCS, not for OfficeHome"):
        RunRequest(dataset="OfficeHome", imbalance="idg").resolve()
    with pytest.raises(InputError, match="not for training on photo"):
        RunRequest(dataset="PACS", test_envs=["sketch"], train_envs=["photo"], imbalance="Duality").resolve()
