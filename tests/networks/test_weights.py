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
