"""Featurizers by name: x -> features, chosen by the hparam ``backbone`` or by the shape of the input."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from dg_batchformer.errors import InputError
from dg_batchformer.hparams import HParam
from dg_batchformer.networks.base import FeaturizerModule
from dg_batchformer.networks.batch_norm import FreezableBatchNorm
from dg_batchformer.networks.batchformer import attach_batchformer
from dg_batchformer.networks.cnn import MnistCnn, SmallCnn, TinyCnn
from dg_batchformer.networks.mlp import MLP, mlp_search_space
from dg_batchformer.networks.resnet import ResNet
from dg_batchformer.networks.weights import NAMED, check_weights, load_weights
from dg_batchformer.networks.wide_resnet import WideResNet

_Build = Callable[[Sequence[int], dict[str, Any]], FeaturizerModule]


class Backbone(NamedTuple):
    """A featurizer by name: one line about it, how it is built, and whether it has BatchNorm."""

    about: str
    build: _Build
    batch_norm: bool = False


def _resnet(name: str) -> _Build:
    return lambda shape, hparams: ResNet(name, shape[0], hparams["resnet_dropout"])


BACKBONES: dict[str, Backbone] = {
    "resnet18": Backbone("ResNet-18, 512 features; weights imagenet_v1, none or a file", _resnet("resnet18"), True),
    "resnet50": Backbone(
        "ResNet-50, 2048 features; weights imagenet_v1, ram_in1k, none or a file", _resnet("resnet50"), True
    ),
    "wrn16_2": Backbone("Wide ResNet 16-2 for 32 px, 128 features", lambda shape, _: WideResNet(shape[0]), True),
    "mnist_cnn": Backbone("DomainBed's CNN for 28 px, 128 features, GroupNorm", lambda shape, _: MnistCnn(shape[0])),
    "small_cnn": Backbone(
        "three convolutions for small images on a CPU, 128 features", lambda shape, _: SmallCnn(shape[0])
    ),
    "tiny": Backbone("one convolution, 16 features: for tests", lambda shape, _: TinyCnn(shape[0])),
    "mlp": Backbone(
        "multi-layer perceptron for vectors", lambda shape, hparams: MLP(shape[0], hparams["mlp_width"], hparams)
    ),
}
BACKBONE = HParam("auto", about="featurizer; auto goes by input shape", choices=("auto", *BACKBONES))


def backbone_for(backbone: str, shape: Sequence[int]) -> str:
    """Resolve ``auto`` by the input shape, as DomainBed; raise InputError where backbone and shape disagree."""
    if backbone == "auto":
        if len(shape) == 1:
            return "mlp"
        return {28: "mnist_cnn", 32: "wrn16_2"}.get(shape[-1], "resnet50")
    if (backbone == "mlp") != (len(shape) == 1):
        wants = "vectors" if backbone == "mlp" else "images"
        raise InputError(f"backbone {backbone} takes {wants}, but inputs have the shape {tuple(shape)}")
    if backbone == "wrn16_2" and shape[-1] != 32:
        raise InputError(
            f"backbone wrn16_2 takes images of 32 pixels, these have {shape[-1]}; set hparam image_size 32"
        )
    return backbone


def featurizer_search_space(backbone: str) -> dict[str, HParam]:
    """Return the hparams that a backbone reads."""
    space = {
        "backbone": BACKBONE,
        "weights": HParam("none", about=f"initial weights: none, {', '.join(NAMED)}, or a file"),
    }
    if BACKBONES[backbone].batch_norm:
        space["freeze_bn"] = HParam(False, about="keep pretrained BatchNorm statistics while training")
    if backbone.startswith("resnet"):
        space["resnet_dropout"] = HParam(
            0.0, lambda rng: rng.choice([0.0, 0.1, 0.5]), "dropout on pooled features", low=0, high=1
        )
    if backbone == "mlp":
        space.update(mlp_search_space())
    return space


def check_featurizer(backbone: str, hparams: dict[str, Any]) -> None:
    """Raise InputError for a backbone, weights and BatchNorm policy that cannot be had together."""
    check_weights(backbone, hparams["weights"])
    if hparams.get("freeze_bn") and hparams["weights"] == "none":
        raise InputError(
            f"freeze_bn with random weights would freeze the statistics of an untrained {backbone}; "
            "set freeze_bn false, or give weights"
        )


def Featurizer(  # noqa: N802
    input_shape: Sequence[int], hparams: dict[str, Any], *, attends: bool = True
) -> FeaturizerModule:
    """Build the featurizer of a run, (N, *input_shape) -> (N, n_outputs), weights loaded.

    Where the hparams hold those of BatchFormer, it carries one as its submodule ``batchformer``, unless ``attends``
    is false: a method's further featurizers are auxiliary, and go without.
    """
    backbone = backbone_for(hparams.get("backbone", "auto"), input_shape)
    hparams = {"weights": "none", **hparams}
    check_featurizer(backbone, hparams)
    featurizer = BACKBONES[backbone].build(input_shape, hparams)
    featurizer.is_auxiliary = not attends
    load_weights(featurizer, backbone, hparams["weights"])
    if isinstance(featurizer, FreezableBatchNorm):
        featurizer.freeze_bn = hparams.get("freeze_bn", False)
        featurizer.train()
    if attends and "bf_layers" in hparams:
        attach_batchformer(featurizer, hparams)
    return featurizer
