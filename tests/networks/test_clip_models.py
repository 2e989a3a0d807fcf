"""CLIP by open_clip, on a small random model of its own."""

import json
from pathlib import Path

import pytest
import torch
from support import resolved, run_quickly
from torch.testing import assert_close

from dg_batchformer.errors import InputError
from dg_batchformer.hparams_registry import resolve_hparams
from dg_batchformer.networks import Featurizer
from dg_batchformer.networks.clip_models import check_templates, zero_shot_weights
from dg_batchformer.networks.weights import fetch_weights
from dg_batchformer.storage.folders import RunFolder, State
from dg_batchformer.training.initialization import check_init

open_clip = pytest.importorskip("open_clip")
NAME = "dg-test-tiny"
STORED = Path(__file__).parents[1] / "data" / "clip_text_features.json"
CLIP = {"backbone": f"clip/{NAME}", "clip_dropout": 0.0}
MEAN, STD = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
TEMPLATES = ["a photo of a {}.", "a drawing of a {}."]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a whole CLIP of open_clip, and the file with its weights."""
    folder = tmp_path_factory.mktemp("clip")
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    vision = {"image_size": 32, "layers": 3, "width": 64, "head_width": 32, "patch_size": 16}
    (folder / f"{NAME}.json").write_text(json.dumps({"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(folder)
    torch.manual_seed(1)
    model = open_clip.model.CLIP(**open_clip.get_model_config(NAME)).eval()
    torch.save(model.state_dict(), folder / "clip.pt")
    return model, str(folder / "clip.pt")


def _as_open_clip_sees(images):
    given = images * STD + MEAN
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    return (given - mean) / std


@pytest.mark.parametrize("projects", [True, False])
def test_features_are_open_clips(projects, whole):
    model, file = whole
    featurizer = Featurizer((3, 32, 32), {**CLIP, "weights": file, "clip_projection": projects}).eval()
    images = torch.rand(2, 3, 32, 32)

    with torch.no_grad():
        z = featurizer(images)
        seen = _as_open_clip_sees(images)
        if projects:
            expected = model.encode_image(seen, normalize=True)
        else:
            expected = model.visual._pool(model.visual.transformer(model.visual._embeds(seen)))[0]

    assert z.shape == (2, featurizer.n_outputs)
    assert_close(z, expected, rtol=1e-4, atol=1e-5)


def test_stages_freeze_and_lora_reaches_the_attention(whole):
    _, file = whole
    given = {**CLIP, "weights": file, "clip_projection": False}
    frozen = Featurizer((3, 32, 32), {**given, "freeze": "blocks.1"})
    adapted = Featurizer((3, 32, 32), {**given, "tune": "lora", "lora_rank": 2, "lora_alpha": 2.0})

    open_names = {name for name, p in frozen.named_parameters() if p.requires_grad}
    assert {name.rpartition("resblocks.")[2][:1] for name in open_names if "resblocks" in name} == {"2"}
    for _, low_rank in ((n, m) for n, m in adapted.named_modules() if type(m).__name__ == "LowRank"):
        torch.nn.init.normal_(low_rank.b)
    assert sum(type(m).__name__ == "LowRank" for m in adapted.modules()) == 6  # two matrices in each of three blocks
    z = adapted.eval()(torch.rand(2, 3, 32, 32))
    (z * torch.randn_like(z)).sum().backward()
    trained = [p for p in adapted.parameters() if p.requires_grad]
    assert all(bool(p.grad.any()) for p in trained)


def test_zero_shot_weights_are_open_clips(whole):
    model, _ = whole
    classes = ["dog", "alarm_clock"]
    tokenizer = open_clip.get_tokenizer(NAME)

    rows = zero_shot_weights(CLIP["backbone"], model.state_dict(), classes, TEMPLATES)

    theirs = open_clip.build_zero_shot_classifier(model, tokenizer, ["dog", "alarm clock"], TEMPLATES)
    assert_close(rows, model.logit_scale.exp().detach() * theirs.T, rtol=1e-4, atol=1e-4)


def test_zero_shot_weights_are_the_stored_text_features(whole):
    stored = json.loads(STORED.read_text())
    state = {
        name: 0.1 * torch.arange(p.numel()).double().cos().view(p.shape) for name, p in whole[0].state_dict().items()
    }
    state = {name: values.float() for name, values in state.items()} | {"logit_scale": torch.tensor(2.0)}

    rows = zero_shot_weights(CLIP["backbone"], state, stored["classes"], stored["templates"])

    assert_close(rows, torch.tensor(2.0).exp() * torch.tensor(stored["rows"]), rtol=1e-4, atol=1e-4)


def test_zero_shot_runs_end_at_once_and_wise_begins_there(whole, image_folder, tmp_path):
    model, file = whole
    data_dir = image_folder(n=5)
    hparams = {"backbone": CLIP["backbone"], "weights": file, "image_size": 32, "batch_size": 2}
    given = {"dataset": "PACS", "protocol": "quick", "steps": 4, "checkpoint_freq": 2}
    zero_shot = resolved(algorithm="ZeroShot", hparams=hparams, **given)
    wise = {**hparams, "init": "zero_shot", "clip_projection": True, "wise_alpha": 0.0}

    assert run_quickly(zero_shot, tmp_path / "zero", data_dir=data_dir) is State.DONE
    assert run_quickly(resolved(algorithm="WiSE", hparams=wise, **given), tmp_path / "wise", data_dir=data_dir)

    [alone] = RunFolder(tmp_path / "zero").records_file.read_text().splitlines()
    last = RunFolder(tmp_path / "wise").records_file.read_text().splitlines()[-1]
    accuracies = [{k: v for k, v in json.loads(line).items() if k.endswith("_acc")} for line in (alone, last)]
    assert accuracies[0] == accuracies[1]
    kept = torch.load(RunFolder(tmp_path / "zero").model_file, weights_only=True)["predictor"]
    rows = zero_shot_weights(CLIP["backbone"], model.state_dict(), ["dog", "house"], TEMPLATES[:1])
    assert_close(kept["1.weight"], rows)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"backbone": "tiny", "init": "zero_shot"}, "backbone is tiny; give a backbone such as clip/"),
        ({"init": "zero_shot", "weights": "none"}, "needs the weights of a CLIP"),
        ({"init": "zero_shot", "clip_projection": False}, "set clip_projection true"),
        ({"init": "zero_shot", "clip_projection": True, "clip_templates": "a photo"}, "holds 'a photo'"),
        ({"image_size": 40}, "set hparam image_size 32 or 48"),
        ({"backbone": "clip/ViT-B-17"}, "did you mean 'clip/ViT-B-1"),
        ({"backbone": "clip/ViT-B-16", "weights": "openai"}, "it can be none, laion400m_e31"),
    ],
)
def test_what_cannot_be_had_is_a_sentence(given, message, whole):
    hparams = {"backbone": CLIP["backbone"], "weights": whole[1], "image_size": 32, **given}
    if hparams["backbone"] != CLIP["backbone"]:
        hparams["weights"] = given.get("weights", "none")
    with pytest.raises(InputError, match=message):
        check_init(resolve_hparams(resolved(dataset="PACS", protocol="quick", hparams=hparams)))


def test_weights_that_are_not_here_are_a_sentence(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)

    with pytest.raises(InputError, match=r"open_clip_model\.safetensors of timm/vit_base_patch16_clip_224\.openai"):
        fetch_weights("clip/ViT-B-16-quickgelu", "openai")


def test_templates_are_separated_by_a_bar():
    assert check_templates("a {}. | the {}.") == ["a {}.", "the {}."]
