"""The published counts, compared with the catalog and with their sums."""

import csv
from importlib.resources import files

import pytest

from dg_batchformer.catalog import datasets
from dg_batchformer.datasets import get_dataset_class
from dg_batchformer.datasets.counts import dataset_version, known_versions, nearest_version, recognise

VERSIONS = [(dataset, version) for dataset in datasets.DATASETS for version in known_versions(dataset)]


@pytest.mark.parametrize(("dataset", "version"), VERSIONS, ids=[version.name for _, version in VERSIONS])
def test_a_published_version_agrees_with_the_catalog_and_with_its_name(dataset, version):
    facts = datasets.dataset_facts(dataset)

    assert tuple(version.counts) == facts.names
    assert version.name == f"{dataset}-{version.total}"
    assert len(version.classes) in (0, facts.num_classes)
    assert all(set(classes) == (version.classes or {"*"}) for classes in version.counts.values())
    assert version.source


def test_every_published_count_belongs_to_a_version():
    text = files("dg_batchformer.datasets").joinpath("published_counts.csv").read_text()
    counted = {row["version"] for row in csv.DictReader(text.splitlines())}

    assert counted == {version.name for _, version in VERSIONS}


def test_terra_incognita_has_two_versions_told_apart_by_environment():
    here = {"location_100": {"bird": 4741}, "location_38": {"bird": 9736}, "location_43": {"bird": 3970}}
    whole = {**here, "location_46": {"bird": 5000, "cat": 883}}
    lacking = {**here, "location_46": {"bird": 5882}}

    assert str(recognise("TerraIncognita", whole, "any")) == "TerraIncognita-24330 (by counts)"
    assert recognise("TerraIncognita", lacking, "any") is None
    assert nearest_version("TerraIncognita", lacking).name == "TerraIncognita-24330"
    assert nearest_version("TerraIncognita", lacking).differences(lacking) == {("location_46", "*"): (5882, 5883)}


def test_a_known_fingerprint_is_recognised_regardless_of_counts():
    [version] = known_versions("PACS")

    assert str(recognise("PACS", {}, version.fingerprint)) == "PACS-9991"
    assert str(recognise("PACS", version.counts, None)) == "PACS-9991 (by counts)"
    assert recognise("PACS", {}, None) is None


def test_data_of_your_own_and_built_in_data_have_no_version(image_folder):
    assert nearest_version("Mine", {}) is None
    assert dataset_version(get_dataset_class("Toy")(None, [0], {})) is None
    assert dataset_version(get_dataset_class("PACS")(image_folder(), [0], {"image_size": 32})) is None
