import torch

from dg_batchformer.datasets import get_dataset_class


def test_shapes_are_drawn_from_a_seed():
    dataset = get_dataset_class("Shapes")(None, [0], {})

    assert [len(environment) for environment in dataset] == [420] * 4
    assert dataset[0].images.dtype == torch.uint8
    assert dataset[0].images.shape[1:] == dataset.input_shape == (3, 32, 32)
    assert torch.bincount(torch.tensor(dataset[2].labels)).tolist() == [60] * 7
    assert dataset.fingerprint() == get_dataset_class("Shapes")(None, [1], {}).fingerprint()
    sketch = dataset[3].images
    assert (sketch[:, 0] == sketch[:, 1]).all(), "a sketch has no colour"


def test_test_datasets_have_the_shapes_that_the_catalog_says():
    for name in ("Toy", "Debug28", "Debug224"):
        dataset = get_dataset_class(name)(None, [0], {})
        assert dataset[0].images.shape[1:] == dataset.facts.shape
        assert len(dataset) == len(dataset.facts.names)
        assert dataset.num_classes == dataset.facts.num_classes
