"""Kept models are rebuilt with the parts that freezing and tuning gave them."""

import pytest
import torch
from support import resolved, run_quickly
from torch.testing import assert_close

from dg_batchformer.models.load import load_model
from dg_batchformer.networks import Featurizer
from dg_batchformer.storage.folders import RunFolder

VIT = {"backbone": "timm/test_vit", "timm_dropout": 0.0}


@pytest.mark.parametrize(
    ("algorithm", "channels", "hparams"),
    [
        ("ERM+BF", 3, {**VIT, "freeze": "blocks.0", "tune": "lora"}),
        ("SWAD", 3, {**VIT, "tune": "head"}),
        ("ERM", 3, {**VIT, "freeze": "blocks.0", "tune": "bias"}),
        ("ARM", 4, {"backbone": "small_cnn", "freeze": "blocks.0"}),  # its context is a fourth channel
    ],
)
def test_a_partly_frozen_model_is_loaded_as_it_was_kept(algorithm, channels, hparams, tmp_path):
    file = tmp_path / "weights.pth"
    source = Featurizer((channels, 32, 32), {**hparams, "freeze": "none", "tune": "all"})
    torch.save(getattr(source, "network", source).state_dict(), file)
    given = {**hparams, "weights": str(file), "batch_size": 4}
    spec = resolved(dataset="Shapes", algorithm=algorithm, protocol="quick", steps=2, test_envs=(3,), hparams=given)
    run_quickly(spec, tmp_path / "run")
    kept = torch.load(tmp_path / "run" / "model.pt", weights_only=True)["predictor"]

    model = load_model(RunFolder(tmp_path / "run"), torch.device("cpu"))

    assert_close(dict(model.predictor.state_dict()), kept, rtol=0, atol=0)
    assert model.predictor(torch.rand(4, 3, 32, 32)).shape == (4, len(model.classes))
