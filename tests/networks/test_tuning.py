"""What ``tune`` names trains, and nothing else of the featurizer."""

import copy

import pytest
import torch
from support import resolved
from torch.testing import assert_close

from dg_batchformer.errors import InputError
from dg_batchformer.hparams_registry import resolve_hparams
from dg_batchformer.networks import Featurizer

VIT = "timm/test_vit"
HPARAMS = {"weights": "none", "timm_dropout": 0.0, "lora_rank": 2, "lora_alpha": 4.0}


def _tuned(backbone, tune, **more):
    torch.manual_seed(0)
    return Featurizer((3, 32, 32), {"backbone": backbone, **HPARAMS, "tune": tune, **more})


def _trains(featurizer):
    return {name for name, parameter in featurizer.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(
    ("backbone", "tune", "inside"),
    [
        ("small_cnn", "norms", lambda name: name.startswith("blocks") and ".1." in name[len("blocks.0") :]),
        ("small_cnn", "bias", lambda name: name.endswith("bias")),
        (VIT, "norms", lambda name: "norm" in name),
        (VIT, "attention", lambda name: ".attn." in name),
        (VIT, "lora", lambda name: ".parametrizations.weight.0." in name),
        (VIT, "all", lambda name: True),
    ],
)
def test_only_the_named_parameters_move(backbone, tune, inside):
    featurizer = _tuned(backbone, tune)
    before = copy.deepcopy(featurizer.state_dict())
    optimizer = torch.optim.SGD(featurizer.parameters(), lr=0.1)

    for _ in range(2):  # the first step of LoRA moves B alone
        optimizer.zero_grad()
        featurizer.train()(torch.randn(4, 3, 32, 32)).square().sum().backward()
        optimizer.step()

    names = {name for name, _ in featurizer.named_parameters()}
    changed = {name for name, value in featurizer.state_dict().items() if not torch.equal(value, before[name])}
    assert _trains(featurizer) == {name for name in names if inside(name)}
    assert changed & names == _trains(featurizer)


def test_lora_begins_at_the_weights_and_leaves_later_draws_alone():
    x = torch.randn(2, 3, 32, 32)
    plain, adapted = _tuned(VIT, "all"), _tuned(VIT, "lora")
    next_draw = torch.rand(1)
    _tuned(VIT, "all")

    assert_close(adapted.eval()(x), plain.eval()(x), rtol=0, atol=1e-6)
    assert torch.equal(torch.rand(1), next_draw)


def test_lora_of_rank_0_is_a_frozen_featurizer():
    featurizer = _tuned(VIT, "lora", lora_rank=0)

    assert _trains(featurizer) == set()
    assert list(featurizer.state_dict()) == list(_tuned(VIT, "all").state_dict())


def _resolve(tmp_path, backbone="small_cnn", protocol="quick", **hparams):
    file = tmp_path / f"{backbone.rpartition('/')[2]}.pt"
    if not file.exists():
        network = Featurizer((3, 32, 32), {"backbone": backbone, **HPARAMS})
        torch.save(getattr(network, "network", network).state_dict(), file)
    given = {"backbone": backbone, "weights": str(file), "image_size": 32, **hparams}
    return resolve_hparams(resolved(dataset="PACS", protocol=protocol, hparams=given))


def test_head_and_stages_are_words_for_a_freeze(tmp_path):
    assert _resolve(tmp_path, tune="head")["freeze"] == "featurizer"
    assert _resolve(tmp_path, tune="stages:1")["freeze"] == "blocks.1"
    assert _resolve(tmp_path, tune="stages:2", freeze="blocks.0")["freeze"] == "blocks.0"
    assert _resolve(tmp_path, tune="norms", freeze="blocks.0")["freeze"] == "blocks.0"
    # A protocol's freeze yields to a person's tune.
    lite = {"backbone": "efficientnet_lite0", "image_size": 64}
    spec = resolved(dataset="PACS", protocol="laptop", hparams={**lite, "tune": "stages:1"})
    assert resolve_hparams(spec)["freeze"] == "blocks.5"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tune": "heads"}, "did you mean 'head'"),
        ({"tune": "stages:0"}, "stages:N"),
        ({"tune": "stages:3"}, r"3 stages \(blocks.0, blocks.1, blocks.2\)"),
        ({"tune": "head", "freeze": "blocks.0"}, "tune head is freeze featurizer, but freeze is blocks.0"),
        ({"tune": "norms", "freeze": "featurizer"}, "leaves nothing of the featurizer for tune norms"),
        ({"tune": "head_then_all", "freeze": "featurizer"}, "leaves nothing"),
        ({"tune": "attention"}, "small_cnn has no attention"),
        ({"tune": "lora"}, "small_cnn has no attention"),
        ({"tune": "bias", "weights": "none"}, "random weights"),
    ],
)
def test_a_tune_that_contradicts_or_finds_nothing_is_refused(given, message, tmp_path):
    with pytest.raises(InputError, match=message):
        _resolve(tmp_path, **given)
