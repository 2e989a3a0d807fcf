"""my_backbone: its shapes, and the contracts of every backbone."""

import torch

import my_backbone
from dg_batchformer.testing import assert_contracts


def test_images_of_any_size_become_32_features():
    backbone = my_backbone.MyBackbone(channels=3)

    for size in (28, 64):
        assert backbone(torch.zeros(2, 3, size, size)).shape == (2, 32)


def test_it_has_stages_and_as_many_features_as_it_says():
    assert_contracts("my_backbone")
