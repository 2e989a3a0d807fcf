"""A frozen prefix keeps its weights and statistics; later layers are trained."""

import copy

import pytest
import torch
from support import make_algorithm, make_minibatches
from torch.testing import assert_close

from dg_batchformer.errors import InputError
from dg_batchformer.hparams import WHOLE
from dg_batchformer.networks import Featurizer
from dg_batchformer.networks.batchformer import attach_batchformer
from dg_batchformer.networks.freezing import check_freeze, freeze, trainable

DROPOUTS = {"resnet_dropout": 0.1, "timm_dropout": 0.1, "lite_dropout": 0.1}
CASES = [
    ("resnet18", (3, 32, 32), "layer2", "network.layer2.1.bn2.bias", "network.layer3.0.conv1.weight"),
    ("wrn16_2", (3, 32, 32), "layer1", "layer1.1.conv2.weight", "layer2.0.bn1.weight"),
    ("small_cnn", (3, 32, 32), "blocks.1", "blocks.1.1.bias", "blocks.2.0.weight"),
    ("timm/vit_tiny_patch16_224", (3, 32, 32), "blocks.3", "network.pos_embed", "network.blocks.4.norm1.weight"),
    ("efficientnet_lite0", (3, 32, 32), "blocks.4", "network.blocks.4.2.bn3.bias", "network.blocks.5.0.conv_pw.weight"),
]


def _featurizer(backbone, shape):
    return Featurizer(shape, {"backbone": backbone, "weights": "none", **DROPOUTS})


@pytest.mark.parametrize(("backbone", "shape", "stage", "last", "following"), CASES, ids=[case[0] for case in CASES])
def test_everything_up_to_the_stage_is_frozen_and_everything_after_it_learns(backbone, shape, stage, last, following):
    featurizer = _featurizer(backbone, shape)
    freeze(featurizer, stage, shape)
    before = copy.deepcopy(featurizer.state_dict())
    optimizer = torch.optim.SGD(trainable(featurizer), lr=0.1)

    featurizer.train()(torch.randn(4, *shape)).square().sum().backward()
    optimizer.step()

    changed = {name for name, value in featurizer.state_dict().items() if not torch.equal(value, before[name])}
    named = dict(featurizer.named_parameters())
    assert not named[last].requires_grad
    assert following in changed
    assert all(named[name].requires_grad for name in changed & set(named))
    assert not {name for name in changed if name.rpartition(".")[0] in featurizer.frozen_layers}


@pytest.mark.parametrize(("backbone", "shape", "stage", "last", "following"), CASES, ids=[case[0] for case in CASES])
def test_prefix_then_rest_are_the_features(backbone, shape, stage, last, following):
    featurizer = _featurizer(backbone, shape).eval()
    x = torch.randn(3, *shape)
    expected = featurizer(x)

    for frozen in (stage, WHOLE):
        freeze(featurizer, frozen, shape)
        assert_close(featurizer(x), expected, rtol=1e-4, atol=1e-5)
        if featurizer.splits_at_stages or frozen == WHOLE:
            assert_close(featurizer.rest(featurizer.prefix(x)), expected, rtol=1e-4, atol=1e-5)


def test_batchformer_trains_behind_a_featurizer_that_is_frozen_whole():
    featurizer = _featurizer("small_cnn", (3, 32, 32))
    freeze(featurizer, WHOLE, (3, 32, 32))
    settings = {"bf_heads": 4, "bf_layers": 1, "bf_dropout": 0.0, "bf_scope": "joint"}

    attach_batchformer(featurizer, settings, (3, 32, 32))

    assert {name.partition(".")[0] for name, p in featurizer.named_parameters() if p.requires_grad} == {"batchformer"}


@pytest.mark.parametrize("upto", ["none", "layers.0", "featurizer"])
def test_what_a_method_adds_to_images_trains_in_front_of_a_frozen_prefix(upto, tmp_path):
    torch.save(Featurizer((4, 32, 32), {"backbone": "tiny"}).state_dict(), tmp_path / "tiny.pt")
    algorithm = make_algorithm("ARM", freeze=upto, weights=str(tmp_path / "tiny.pt"))
    before = [parameter.detach().clone() for parameter in algorithm.context_net.parameters()]

    algorithm.update(make_minibatches())

    moved = [not torch.equal(a, b) for a, b in zip(algorithm.context_net.parameters(), before, strict=True)]
    assert sum(moved) > len(moved) / 2  # a bias before BatchNorm has no gradient


def test_an_unknown_stage_is_answered_with_the_known_ones():
    with pytest.raises(InputError, match=r"blocks\.2"):
        check_freeze(_featurizer("small_cnn", (3, 32, 32)), "block.2", None)


def test_batchformer_v2_is_refused_inside_the_frozen_part_and_accepted_behind_it():
    featurizer = _featurizer("small_cnn", (3, 32, 32))

    check_freeze(featurizer, "blocks.1", "blocks.1")
    check_freeze(featurizer, WHOLE, "pooled")
    with pytest.raises(InputError, match=r"set bfv2_insert to blocks\.1 or later"):
        check_freeze(featurizer, "blocks.1", "blocks.0")
    with pytest.raises(InputError, match="set bfv2_insert to pooled"):
        check_freeze(featurizer, WHOLE, "blocks.2")
