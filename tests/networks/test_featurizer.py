from contextlib import nullcontext

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.testing import assert_close

from dg_batchformer.errors import InputError
from dg_batchformer.networks import MLP, Classifier, Featurizer, resnet
from dg_batchformer.networks.backbones import BACKBONES, backbone_for
from dg_batchformer.networks.freezing import freeze
from dg_batchformer.networks.resnet import ResNet

MLP_HPARAMS = {"mlp_width": 8, "mlp_depth": 4, "mlp_dropout": 0.0}
SIZES = {"wrn16_2": 32, "mnist_cnn": 28, "tiny": 20}


@pytest.mark.parametrize(
    ("shape", "backbone"),
    [((8,), "mlp"), ((1, 28, 28), "mnist_cnn"), ((3, 32, 32), "wrn16_2"), ((3, 224, 224), "resnet50")],
)
def test_auto_chooses_by_input_shape_as_domainbed_does(shape, backbone):
    assert backbone_for("auto", shape) == backbone


@pytest.mark.parametrize("backbone", [name for name in BACKBONES if name != "mlp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_backbone_returns_as_many_features_as_declared(backbone, channels):
    size = SIZES.get(backbone, 64)
    featurizer = Featurizer(
        (channels, size, size), {"backbone": backbone, "weights": "none", "resnet_dropout": 0.0, "lite_dropout": 0.0}
    )

    with torch.no_grad():
        assert featurizer(torch.randn(2, channels, size, size)).shape == (2, featurizer.n_outputs)


def test_sizes_equal_upstreams():
    def count(module):
        return sum(parameter.numel() for parameter in module.parameters())

    assert count(Featurizer((2, 28, 28), {"backbone": "mnist_cnn"})) == 371136
    assert count(Classifier(64, 7, is_nonlinear=True)) == 64 * 32 + 32 + 32 * 16 + 16 + 16 * 7 + 7
    assert count(MLP(5, 3, MLP_HPARAMS)) == 5 * 8 + 8 + 2 * (8 * 8 + 8) + 8 * 3 + 3


def test_frozen_batch_norm_keeps_its_statistics_and_trains_its_scale(tmp_path):
    file = tmp_path / "r18.pth"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), file)
    hparams = {"backbone": "resnet18", "weights": str(file), "freeze_bn": True, "resnet_dropout": 0.0}
    featurizer = Featurizer((3, 64, 64), hparams)
    before = featurizer.network.bn1.running_mean.clone()

    featurizer.train()
    featurizer(torch.randn(4, 3, 64, 64)).sum().backward()

    assert_close(featurizer.network.bn1.running_mean, before, rtol=0, atol=0)
    assert featurizer.network.bn1.weight.grad.abs().sum() > 0
    assert all(not layer.training for layer in featurizer.modules() if isinstance(layer, _BatchNorm))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnets_equal_torchvisions_with_statistics_fixed_or_not(name):
    """Fixed statistics are folded into the convolutions; outputs and gradients, also of scale and shift, are equal."""
    torch.manual_seed(0)
    ours = ResNet(name, 3, dropout=0.0).double()
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name, weights=None).double()
    theirs.fc = nn.Identity()
    assert_close(dict(ours.network.state_dict()), dict(theirs.state_dict()), rtol=0, atol=0)
    x = torch.randn(3, 3, 40, 40, dtype=torch.double)

    for fixed in (False, True):  # the first pass moves the statistics
        features = [network.train(not fixed)(x) for network in (ours, theirs)]
        parameters = [list(network.parameters()) for network in (ours, theirs)]
        gradients = [torch.autograd.grad(z.square().sum(), own) for z, own in zip(features, parameters, strict=True)]

        assert_close(*features)
        for mine, upstreams in zip(*gradients, strict=True):
            assert_close(mine, upstreams, rtol=1e-6, atol=1e-6 * upstreams.abs().max().item())


def test_pretrained_weights_load_without_the_last_layer_and_repeat_over_channels(tmp_path):
    source = torchvision.models.resnet18(weights=None)
    file = tmp_path / "r18.pth"
    torch.save({"state_dict": source.state_dict()}, file)
    hparams = {"backbone": "resnet18", "weights": str(file), "resnet_dropout": 0.0}

    rgb, five = (Featurizer((channels, 64, 64), hparams) for channels in (3, 5))

    assert_close(rgb.network.layer4[1].conv2.weight, source.layer4[1].conv2.weight)
    assert_close(five.network.conv1.weight, source.conv1.weight[:, [0, 1, 2, 0, 1]])


def test_backbones_and_inputs_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="backbone mlp takes vectors"):
        backbone_for("mlp", (3, 32, 32))
    with pytest.raises(InputError, match="wrn16_2 takes images of 32 pixels, but these have 64"):
        backbone_for("wrn16_2", (3, 64, 64))
    with pytest.raises(InputError, match="freeze_bn with random weights"):
        Featurizer((3, 32, 32), {"backbone": "wrn16_2", "freeze_bn": True})


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_folding_all_batch_norms_together_or_one_by_one_is_equal_to_the_bit(frozen, dtype, monkeypatch):
    network = _resnet_with_statistics()
    network.freeze_bn, network.autocast = frozen, dtype
    network.train(frozen)
    x, found = torch.rand(2, 3, 32, 32), []

    for context in (resnet.folded, lambda layers: nullcontext()):
        monkeypatch.setattr(resnet, "folded", context)
        network.zero_grad()
        z = network(x)
        z.square().sum().backward()
        found.append([z, *(parameter.grad for parameter in network.parameters())])

    assert all(torch.equal(together, alone) for together, alone in zip(*found, strict=True))


def test_a_gpu_folds_layers_of_one_shape_together_and_gets_the_same_first_and_second_derivatives(monkeypatch):
    network = _resnet_with_statistics().double()
    network.freeze_bn = True
    network.network.layer1.requires_grad_(False)
    network.train()
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    x, found = torch.rand(2, 3, 32, 32, dtype=torch.double), []

    for launch_bound in ((), ("cpu",)):
        monkeypatch.setattr(resnet, "_LAUNCH_BOUND_DEVICES", launch_bound)
        z = network(x)
        first = torch.autograd.grad(z.square().sum(), parameters, create_graph=True)
        second = torch.autograd.grad(sum(gradient.square().sum() for gradient in first), parameters)
        found.append([z, *first, *second])

    for alone, together in zip(*found, strict=True):
        assert_close(together, alone, rtol=1e-9, atol=1e-9 * alone.abs().max().item())


def _resnet_with_statistics():
    network = ResNet("resnet18", 3, 0.0)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.running_mean, -1, 1)
            torch.nn.init.uniform_(layer.running_var, 0.5, 2)
    return network


def test_layers_of_a_prefix_that_is_read_from_the_cache_are_not_folded(monkeypatch):
    network = _resnet_with_statistics().eval()
    freeze(network, "layer3", (3, 32, 32))
    maps, found = network.prefix(torch.rand(2, 3, 32, 32)), []
    fold = resnet.fold
    monkeypatch.setattr(resnet, "fold", lambda layers: found.append(len(layers)) or fold(layers))

    network.reads_prefix = True
    network(maps)

    assert found == [5]  # layer4: two blocks of two convolutions, and a shortcut


def test_a_layer_uses_its_present_statistics_after_a_forward_that_failed():
    network = ResNet("resnet18", 3, 0.0).eval()

    with pytest.raises(RuntimeError):
        network(torch.rand(2, 1, 32, 32))

    convolution, norm, x = network.network.conv1, network.network.bn1, torch.rand(2, 3, 32, 32)
    norm.running_mean += 1
    assert_close(resnet.convolve_and_normalise(convolution, norm, x), norm(convolution(x)))


@pytest.mark.parametrize("frozen", [True, False])
def test_a_resnet_compiles_to_one_graph(frozen):
    torch._dynamo.reset()
    network = ResNet("resnet18", 3, 0.0)
    network.freeze_bn = frozen
    x = torch.rand(2, 3, 32, 32)
    compiled = torch.compile(type(network).features, backend="eager", fullgraph=True)

    for trains in (True, False):
        network.train(trains)
        with torch.autocast("cpu", torch.bfloat16):
            assert_close(compiled(network, x), network.features(x), rtol=0.05, atol=0.05)
