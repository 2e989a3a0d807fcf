"""Featurizers by name: x -> features, chosen by the hparam ``backbone`` or by the shape of the input."""

from collections.abc import Callable, Sequence
from typing import Any

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

BACKBONES: dict[str, Callable[[Sequence[int], dict[str, Any]], FeaturizerModule]] = {
    "resnet18": lambda shape, hparams: ResNet("resnet18", shape[0], hparams["resnet_dropout"]),
    "resnet50": lambda shape, hparams: ResNet("resnet50", shape[0], hparams["resnet_dropout"]),
    "wrn16_2": lambda shape, hparams: WideResNet(shape[0]),
    "mnist_cnn": lambda shape, hparams: MnistCnn(shape[0]),
    "small_cnn": lambda shape, hparams: SmallCnn(shape[0]),
    "tiny": lambda shape, hparams: TinyCnn(shape[0]),
    "mlp": lambda shape, hparams: MLP(shape[0], hparams["mlp_width"], hparams),
}
_WITH_BATCH_NORM = ("resnet18", "resnet50", "wrn16_2")


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
        "backbone": HParam("auto", about="featurizer; auto goes by input shape", choices=("auto", *BACKBONES)),
        "weights": HParam("none", about=f"initial weights: none, {', '.join(NAMED)}, or a file"),
    }
    if backbone in _WITH_BATCH_NORM:
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


def Featurizer(input_shape: Sequence[int], hparams: dict[str, Any]) -> FeaturizerModule:  # noqa: N802
    """Build the featurizer of a run, (N, *input_shape) -> (N, n_outputs), weights loaded.

    Where the hparams hold those of BatchFormer, it carries one as its submodule ``batchformer``.
    """
    backbone = backbone_for(hparams.get("backbone", "auto"), input_shape)
    hparams = {"weights": "none", **hparams}
    check_featurizer(backbone, hparams)
    featurizer = BACKBONES[backbone](input_shape, hparams)
    load_weights(featurizer, backbone, hparams["weights"])
    if isinstance(featurizer, FreezableBatchNorm):
        featurizer.freeze_bn = hparams.get("freeze_bn", False)
        featurizer.train()
    if "bf_layers" in hparams:
        attach_batchformer(featurizer, hparams)
    return featurizer
