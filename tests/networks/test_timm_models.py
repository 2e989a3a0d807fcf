import sys

import pytest
import torch
from support import make_algorithm, make_minibatches, resolved
from torch.testing import assert_close

from dg_batchformer.errors import InputError
from dg_batchformer.hparams_registry import default_hparams, resolve_hparams
from dg_batchformer.networks import Featurizer
from dg_batchformer.networks.backbones import BACKBONE, backbone_for
from dg_batchformer.networks.weights import fetch_weights
from dg_batchformer.training import checkpoint


def test_without_timm_its_backbones_explain_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)

    with pytest.raises(InputError, match=r"timm/test_vit needs timm, which is not installed.*pip install timm"):
        BACKBONE.parse("backbone", "timm/test_vit")


timm = pytest.importorskip("timm", reason="timm is not installed; the dev extra brings it")


def _featurizer(name, size=32, *, channels=3, **hparams):
    given = {"backbone": f"timm/{name}", "weights": "none", "timm_dropout": 0.0, **hparams}
    return Featurizer((channels, size, size), given)


@pytest.mark.parametrize(
    ("name", "channels", "size"),
    [("test_vit", 3, 48), ("test_resnet", 4, 32), ("test_convnext", 3, 32), ("test_efficientnet", 1, 32)],
)
def test_features_are_those_in_front_of_the_classifier(name, channels, size):
    featurizer = _featurizer(name, size, channels=channels).eval()
    x = torch.randn(2, channels, size, size)

    with torch.no_grad():
        z = featurizer(x)
        assert z.shape == (2, featurizer.n_outputs)
        assert_close(z, featurizer.network(x))
    assert len(featurizer.stages()) >= 2


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_stages_are_observed_changed_and_restored(name):
    featurizer = _featurizer(name).eval()
    x = torch.randn(2, 3, 32, 32)
    places = []

    def silence_the_first(place, maps):
        places.append(place)
        return maps * (place > 0)

    z, maps = featurizer.with_maps(x)
    with featurizer.seen_by(silence_the_first):
        changed = featurizer(x)

    assert_close(z, featurizer(x))
    assert not torch.allclose(changed, z)
    assert places == list(range(len(featurizer.stages()))) == list(range(len(maps)))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("test_vitt", r"unknown backbone 'timm/test_vitt'; did you mean 'timm/test_vit"),
        ("test_vit.r160_in1k", "includes a weights tag; set it as a hparam: weights r160_in1k"),
    ],
)
def test_unknown_models_are_answered_with_similar_ones(name, message):
    with pytest.raises(InputError, match=message):
        BACKBONE.parse("backbone", f"timm/{name}")


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        (
            "test_vit",
            40,
            "patches of 16 pixels, which do not divide images of 3 x 40 x 40; set hparam image_size 32 or",
        ),
        ("test_vit", 8, "patches of 16 pixels.*; set hparam image_size 16$"),
    ],
)
def test_unsupported_image_sizes_are_refused(name, size, message):
    with pytest.raises(InputError, match=message):
        backbone_for(f"timm/{name}", (3, size, size))


def test_tags_are_explicit_and_unknown_ones_are_answered_with_similar_ones():
    with pytest.raises(InputError, match=r"it can be none, r160_in1k, or the path.*did you mean 'r160_in1k'"):
        fetch_weights("timm/test_vit", "r160_in12k")


def test_weights_that_cannot_be_downloaded_are_reported_with_a_remedy(monkeypatch):
    hub = pytest.importorskip("huggingface_hub")

    def refuse(*arguments, local_files_only):
        raise OSError("not cached" if local_files_only else "no network")

    monkeypatch.setattr(hub, "hf_hub_download", refuse)

    with pytest.raises(InputError, match=r"model.safetensors of timm/test_vit.r160_in1k .*\(no network\); run hf down"):
        fetch_weights("timm/test_vit", "r160_in1k")


def test_a_cached_tag_is_read_from_disk(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    from safetensors.torch import save_file

    source = timm.create_model("test_vit")
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(hub, "hf_hub_download", lambda *arguments, **given: str(tmp_path / "model.safetensors"))

    featurizer = _featurizer("test_vit", 160, weights="r160_in1k").eval()

    x = torch.rand(2, 3, 160, 160)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        z = source.eval().forward_head(source.forward_features((x - 0.5) / 0.5), pre_logits=True)
        assert_close(featurizer((x - mean) / std), z, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("classes", [0, 5, 1000])
def test_a_file_is_loaded_whatever_its_classifier_and_its_size_of_images(classes, tmp_path):
    source = timm.create_model("test_vit", num_classes=classes, img_size=64)
    torch.save({"model": source.state_dict()}, tmp_path / "vit.pth")

    featurizer = _featurizer("test_vit", 32, weights=str(tmp_path / "vit.pth"))

    assert_close(featurizer.network.blocks[1].mlp.fc1.weight, source.blocks[1].mlp.fc1.weight)
    assert featurizer.network.pos_embed.shape[1] < source.pos_embed.shape[1]
    assert not [name for name in featurizer.state_dict() if "head." in name]


@pytest.mark.parametrize("change", ["lacks a tensor", "is of another model"])
def test_a_file_that_does_not_fit_is_refused(change, tmp_path):
    state = timm.create_model("test_vit" if change == "lacks a tensor" else "test_resnet", num_classes=0).state_dict()
    state.pop("norm.weight", None)
    torch.save(state, tmp_path / "weights.pth")

    with pytest.raises(InputError, match=r"does not fit backbone timm/test_vit: .*Missing key"):
        _featurizer("test_vit", weights=str(tmp_path / "weights.pth"))


def test_frozen_batch_norm_keeps_the_statistics_of_a_cnn_and_a_transformer_has_none_to_freeze(tmp_path):
    torch.save(timm.create_model("test_resnet", num_classes=0).state_dict(), tmp_path / "resnet.pth")
    featurizer = _featurizer("test_resnet", weights=str(tmp_path / "resnet.pth"), freeze_bn=True).train()
    before = {name: value.clone() for name, value in featurizer.named_buffers()}

    featurizer(torch.randn(4, 3, 32, 32)).sum().backward()

    assert any("running_mean" in name for name in before)
    assert_close(dict(featurizer.named_buffers()), before, rtol=0, atol=0)
    for name, has in (("test_resnet", True), ("test_vit", False)):
        spec = resolved(dataset="Shapes", protocol="quick", hparams={"backbone": f"timm/{name}"})
        assert ("freeze_bn" in resolve_hparams(spec)) is has


def test_miro_learns_a_variance_for_every_channel_of_tokens():
    algorithm = make_algorithm("MIRO+BFv2", backbone="timm/test_vit", bfv2_insert="blocks.0")

    assert torch.isfinite(algorithm.update(make_minibatches(n=2))["penalty"])
    widths = {tuple(parameter.shape) for parameter in algorithm.inner.variances.parameters()}
    assert widths == {(1, 1, algorithm.inner.featurizer.n_outputs)}


def test_styles_are_mixed_as_in_a_resnet_and_tokens_have_none():
    algorithm = make_algorithm("MixStyle", backbone="timm/test_resnet")
    [featurizer] = algorithm.styled_featurizers()
    names = list(featurizer.stages())

    assert [names[place] for place in algorithm.mixer(featurizer, 6).places] == ["layer1", "layer2", "layer3"]
    with pytest.raises(InputError, match=r"MixStyle .* has none .* with backbone timm/test_vit; use .* convolutional"):
        make_algorithm("MixStyle", backbone="timm/test_vit")


@pytest.mark.parametrize("name", ["ERM+BF", "SWAD+CORAL+BFv2", "IGA+BFv2"])
def test_algorithms_train_on_a_vit_and_resume_exactly_from_a_checkpoint(name, tmp_path):
    one, other = (make_algorithm(name, backbone="timm/test_vit", seed=seed) for seed in (0, 1))
    one.update(make_minibatches(n=2))

    checkpoint.save(tmp_path / "c.pt", checkpoint.capture(one))
    checkpoint.restore(other, checkpoint.load(tmp_path / "c.pt", torch.device("cpu")))
    for algorithm in (one, other):
        torch.manual_seed(7)
        algorithm.update(make_minibatches(n=2, seed=1))

    assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)


def test_a_kept_model_is_rebuilt_without_its_initial_weights(tmp_path):
    torch.save(timm.create_model("test_vit", num_classes=0, img_size=32).state_dict(), tmp_path / "vit.pth")
    hparams = {**default_hparams("ERM", "Shapes", protocol="quick"), "timm_dropout": 0.0, "backbone": "timm/test_vit"}
    trained, rebuilt = (
        Featurizer((3, 32, 32), {**hparams, "weights": weights}).eval()
        for weights in (str(tmp_path / "vit.pth"), "none")
    )
    x = torch.randn(2, 3, 32, 32)

    rebuilt.load_state_dict(trained.state_dict())

    assert_close(rebuilt(x), trained(x), rtol=0, atol=0)
