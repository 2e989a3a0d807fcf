"""Properties of every dataset, on minimal data of each kind."""

import pytest
import torch
from data_folders import write_dataset
from support import resolved

from dg_batchformer.catalog.datasets import DATASETS as FACTS
from dg_batchformer.datasets import DATASETS, open_dataset
from dg_batchformer.errors import InputError
from dg_batchformer.hparams_registry import resolve_hparams
from dg_batchformer.training.loaders import ExactLoader, Request


def test_every_known_dataset_can_be_loaded():
    assert set(FACTS) == set(DATASETS)


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "Shapes"])  # slow, tested elsewhere
def test_a_dataset_has_the_environments_and_shapes_that_the_catalog_says(name, tmp_path, monkeypatch):
    spec = resolved(dataset=name, protocol="quick")
    root = write_dataset(name, tmp_path / "data", monkeypatch)

    dataset = open_dataset(spec, root, resolve_hparams(spec))

    assert tuple(environment.name for environment in dataset) == FACTS[name].names
    assert len(dataset.input_shape) == len(FACTS[name].shape)
    with ExactLoader(dataset.environments, dataset.input_shape[-1], 0, print) as loader:
        for env, environment in enumerate(dataset):
            last = len(environment) - 1
            [[batch]] = loader.stream([[Request(env, [last, 0])]])
            assert batch.images.shape[1:] == dataset.input_shape
            assert batch.labels.tolist() == [environment.labels[last], environment.labels[0]]
            assert set(environment.labels) <= set(range(dataset.num_classes))


@pytest.mark.parametrize("name", [name for name in DATASETS if FACTS[name].folder])
def test_missing_data_is_one_sentence_with_a_remedy(name, tmp_path, monkeypatch):
    write_dataset(name, tmp_path / "there", monkeypatch)
    (tmp_path / "empty").mkdir()
    for root in (None, tmp_path / "empty"):
        with pytest.raises(InputError, match=r"needs --data_dir|has no folder|is missing"):
            open_dataset(resolved(dataset=name), root, {"image_size": 8})


@pytest.mark.parametrize("name", [name for name in DATASETS if FACTS[name].folder])
def test_all_trials_have_one_fingerprint(name, tmp_path, monkeypatch):
    root = write_dataset(name, tmp_path / "data", monkeypatch)
    first, again = (
        open_dataset(resolved(dataset=name, trial_seed=trial), root, {"image_size": 8}).fingerprint()
        for trial in (0, 1)
    )

    assert first == again
    assert len(first) == 64


def test_spawrious_is_misleading_only_in_test_environments(tmp_path, monkeypatch):
    root = write_dataset("SpawriousM2M_easy", tmp_path, monkeypatch)
    dataset = open_dataset(resolved(dataset="SpawriousM2M_easy"), root, {"image_size": 8})
    places = [{(file.parent.parent.name, file.parent.name) for file in environment.files} for environment in dataset]

    assert ("desert", "bulldog") in places[1]
    assert ("mountain", "bulldog") in places[2]
    assert places[0].isdisjoint(places[1] | places[2])
    assert not dataset.notes
    assert (
        "designed to be tested on Test"
        in open_dataset(resolved(dataset="SpawriousM2M_easy", test_envs=[1]), root, {"image_size": 8}).notes[-1]
    )


def test_spawrious_o2o_samples_its_share_of_every_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("dg_batchformer.datasets.spawrious._IN_FOLDER", 2)
    monkeypatch.setattr("dg_batchformer.datasets.spawrious._AT_HOME", (2, 1))
    root = write_dataset("SpawriousO2O_easy", tmp_path, monkeypatch)
    dataset = open_dataset(resolved(dataset="SpawriousO2O_easy"), root, {"image_size": 8})

    bulldogs = [file for file in dataset[2].files if file.parent.name == "bulldog"]
    below = [str(file.relative_to(root / "spawrious224")) for file in bulldogs]
    assert below == ["1/desert/bulldog/0.png", "1/beach/bulldog/0.png"]
    assert [len(environment) for environment in dataset] == [16, 8, 8]
    assert torch.bincount(torch.tensor(dataset[0].labels)).tolist() == [4] * 4


def test_digits_of_both_parts_are_pooled(tmp_path, monkeypatch):
    root = write_dataset("DigitsDG", tmp_path, monkeypatch)
    dataset = open_dataset(resolved(dataset="DigitsDG"), root, {})

    assert dataset.classes == ["0", "7"]
    assert [len(environment) for environment in dataset] == [12] * 4


def test_wilds_are_read_by_their_package_or_its_installation_is_explained(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r'needs the wilds package .*: pip install "dg_batchformer\[wilds\]"'):
        open_dataset(resolved(dataset="WILDSCamelyon"), tmp_path, {"image_size": 8})
    root = write_dataset("WILDSCamelyon", tmp_path, monkeypatch)

    dataset = open_dataset(resolved(dataset="WILDSCamelyon"), root, {"image_size": 8})

    images, _ = dataset[3].load([0, 2])
    assert [image.getpixel((0, 0))[0] for image in images] == [3, 13]  # every fifth image, from the fourth on
    assert dataset[3].labels == [0, 0, 1, 1, 1]


def test_wilds_images_are_squared_before_they_are_cropped(tmp_path, monkeypatch):
    root = write_dataset("WILDSCamelyon", tmp_path, monkeypatch)
    dataset = open_dataset(resolved(dataset="WILDSCamelyon"), root, {"image_size": 40})

    images = dataset[0].load([0, 1]).images

    assert [image.size for image in images] == [(40, 40)] * 2
