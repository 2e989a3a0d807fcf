from statistics import fmean

import torch
from torch.nn import functional as F

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


def test_an_unseen_style_is_harder_than_seen_ones_but_not_impossible():
    """With a linear probe on pixels, because networks take minutes."""
    dataset = get_dataset_class("Shapes")(None, [0], {})
    pixels = [F.avg_pool2d(environment.images / 255, 2).flatten(1) for environment in dataset]
    labels = [torch.as_tensor(environment.labels) for environment in dataset]
    held_out = torch.arange(420) % 5 == 0

    scores = []
    for env in range(4):
        seen = [other for other in range(4) if other != env]
        train, validate = _rows(pixels, labels, seen, ~held_out), _rows(pixels, labels, seen, held_out)
        scores.append([_probe(train, validate), _probe(train, (pixels[env], labels[env]))])

    assert all(test < validation - 0.1 for validation, test in scores), scores
    assert fmean(test for _, test in scores) > 1 / 7 + 0.04, scores


def _rows(pixels, labels, envs, part):
    return [torch.cat([rows[env][part] for env in envs]) for rows in (pixels, labels)]


def _probe(train, test):
    """Return the accuracy of ridge regression on one-hot labels."""
    x, y = train
    mean = x.mean(dim=0)
    moments = (x - mean).T @ (x - mean) + 10 * torch.eye(x.shape[1])
    weights = torch.linalg.solve(moments, (x - mean).T @ (F.one_hot(y, 7) - 1 / 7))
    return (((test[0] - mean) @ weights).argmax(dim=1) == test[1]).float().mean().item()


def test_test_datasets_have_the_shapes_that_the_catalog_says():
    for name in ("Toy", "Debug28", "Debug224"):
        dataset = get_dataset_class(name)(None, [0], {})
        assert dataset[0].images.shape[1:] == dataset.facts.shape
        assert len(dataset) == len(dataset.facts.names)
        assert dataset.num_classes == dataset.facts.num_classes
