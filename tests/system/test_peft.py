"""LoRA equals that of the peft library, which is no dependency of ours: pip install peft."""

import pytest
import torch
from torch.testing import assert_close

from dg_batchformer.networks import Featurizer

pytestmark = pytest.mark.system


def test_lora_equals_pefts_on_a_vit():
    peft = pytest.importorskip("peft")
    hparams = {"backbone": "timm/test_vit", "weights": "none", "timm_dropout": 0.0, "lora_rank": 4, "lora_alpha": 8.0}
    ours = Featurizer((3, 32, 32), {**hparams, "tune": "lora"})
    plain = Featurizer((3, 32, 32), hparams)
    state = {name.replace(".parametrizations.weight.original", ".weight"): t for name, t in ours.state_dict().items()}
    plain.load_state_dict({name: tensor for name, tensor in state.items() if ".parametrizations." not in name})
    targets = r".*\.attn\.(qkv|proj)"
    theirs = peft.get_peft_model(plain, peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets))
    pairs = []
    for name, module in ours.named_modules():
        if hasattr(module, "parametrizations"):
            low_rank, layer = module.parametrizations.weight[0], theirs.base_model.model.get_submodule(name)
            pairs += [(low_rank.a, layer.lora_A["default"].weight), (low_rank.b, layer.lora_B["default"].weight)]
    with torch.no_grad():
        for own, other in pairs:
            own.normal_(std=0.1)
            other.copy_(own)
    x = torch.randn(4, 3, 32, 32)

    z, expected = ours(x), theirs(x)
    z.square().sum().backward()
    expected.square().sum().backward()

    assert len(pairs) > 2
    assert_close(z, expected, rtol=0, atol=1e-6)
    for own, other in pairs:
        assert_close(own.grad, other.grad, rtol=1e-4, atol=1e-6)
