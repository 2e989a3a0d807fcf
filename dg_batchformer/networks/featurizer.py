"""Build a featurizer from the hparams ``backbone`` and ``weights``."""

from collections.abc import Sequence
from typing import Any

import torch

from dg_batchformer.errors import InputError
from dg_batchformer.hparams import NOTHING, HParam
from dg_batchformer.networks.backbones import BACKBONE, backbone_for, get_backbone
from dg_batchformer.networks.base import FeaturizerModule
from dg_batchformer.networks.batch_norm import FreezableBatchNorm
from dg_batchformer.networks.batchformer import attach_batchformer
from dg_batchformer.networks.clip_models import is_clip
from dg_batchformer.networks.freezing import check_freeze, decay_by_stage, freeze
from dg_batchformer.networks.insertion import stage_name
from dg_batchformer.networks.mlp import mlp_search_space
from dg_batchformer.networks.tuning import ALL, check_tune, settle_freeze, tune, tuning_search_space
from dg_batchformer.networks.weights import check_weights, load_weights, named_weights

WEIGHTS_FOLLOW = "weights_follow"  # true among the hparams of a network that gets its weights once it is built


def featurizer_search_space(backbone: str, input_shape: Sequence[int]) -> dict[str, HParam]:
    """Return the hparams of a backbone for an input shape."""
    space = {
        "backbone": BACKBONE,
        "weights": HParam("none", about=f"initial weights: {', '.join(['none', *named_weights(backbone)])}, or a file"),
    }
    if get_backbone(backbone, input_shape).batch_norm:
        space["freeze_bn"] = HParam(False, about="keep pretrained BatchNorm statistics during training")
    for family in ("resnet", "timm", "efficientnet_lite", "clip"):
        if backbone.startswith(family):
            space[f"{family.removeprefix('efficientnet_')}_dropout"] = HParam(
                0.0, lambda rng: rng.choice([0.0, 0.1, 0.5]), "dropout on pooled features", low=0, high=1
            )
    if is_clip(backbone):
        space["clip_projection"] = HParam(False, about="project features as CLIP does, to norm 1: for init zero_shot")
        space["clip_templates"] = HParam(
            "a photo of a {}.", about="prompts of init zero_shot, {} for a class; | between"
        )
    if len(input_shape) == 3:
        about = "freeze up to and including a stage; none, a stage name, or featurizer for all of it"
        space["freeze"] = HParam(NOTHING, about=about)
        space.update(tuning_search_space())
    if backbone == "mlp":
        space.update(mlp_search_space())
    return space


def _without_memory(backbone: str, input_shape: Sequence[int], hparams: dict[str, Any]) -> FeaturizerModule:
    """Build a featurizer on the meta device, to inspect its structure."""
    with torch.device("meta"):
        return get_backbone(backbone, input_shape).build(input_shape, hparams)


def settle_featurizer(
    backbone: str, input_shape: Sequence[int], hparams: dict[str, Any], *, gives_freeze: bool
) -> dict[str, Any]:
    """Return the hparams with the ``freeze`` that ``tune`` means.

    Args:
        gives_freeze: whether a person gave ``freeze``.

    Raises InputError if backbone, weights, ``freeze_bn``, ``freeze``, ``tune`` and ``bfv2_insert`` do not fit together.

    """
    inserted, tuned = hparams.get("bfv2_insert"), hparams.get("tune", ALL)
    if inserted is None and tuned == ALL and hparams.get("freeze", NOTHING) == NOTHING:
        _check_weights(backbone, hparams)
        return hparams
    check_weights(backbone, hparams["weights"])
    featurizer = _without_memory(backbone, input_shape, hparams)
    if tuned != ALL:
        hparams = {**hparams, "freeze": settle_freeze(featurizer, hparams, is_given=gives_freeze)}
    _check_weights(backbone, hparams)
    if inserted is not None:
        stage_name(featurizer, inserted)
    check_freeze(featurizer, hparams.get("freeze", NOTHING), inserted)
    if tuned != ALL:
        freeze(featurizer, hparams["freeze"], input_shape)
        check_tune(featurizer, hparams)
    return hparams


def _check_weights(backbone: str, hparams: dict[str, Any]) -> None:
    check_weights(backbone, hparams["weights"])
    if hparams.get("freeze_bn") and hparams["weights"] == "none":
        raise InputError(
            f"freeze_bn with random weights would freeze the statistics of an untrained {backbone}; "
            "set freeze_bn false, or give weights"
        )
    if hparams.get("freeze", NOTHING) != NOTHING and hparams["weights"] == "none":
        raise InputError(
            f"freeze {hparams['freeze']} with random weights would keep an untrained {backbone}; set freeze none, or "
            "give weights"
        )


def Featurizer(  # noqa: N802
    input_shape: Sequence[int], hparams: dict[str, Any], *, attends: bool = True
) -> FeaturizerModule:
    """Build the featurizer of a run, (N, *input_shape) -> (N, n_outputs), and load its weights.

    If the hparams contain BatchFormer's, it gets one as its submodule ``batchformer``.

    Args:
        attends: set to false for auxiliary featurizers of a method, which get no BatchFormer.

    Raises InputError if weights do not fit, or if random ones would be frozen and none follow (``WEIGHTS_FOLLOW``).

    """
    backbone = backbone_for(hparams.get("backbone", "auto"), input_shape)
    hparams = {"weights": "none", **hparams}
    if not hparams.get(WEIGHTS_FOLLOW):
        _check_weights(backbone, hparams)
    featurizer = get_backbone(backbone, input_shape).build(input_shape, hparams)
    featurizer.is_auxiliary = not attends
    load_weights(featurizer, backbone, hparams["weights"])
    if isinstance(featurizer, FreezableBatchNorm):
        featurizer.freeze_bn = hparams.get("freeze_bn", False)
        featurizer.train()
    freeze(featurizer, hparams.get("freeze", NOTHING), input_shape)
    tune(featurizer, hparams)
    featurizer.fixed = tuple(name for name, parameter in featurizer.named_parameters() if not parameter.requires_grad)
    if hparams.get("layer_decay", 1.0) != 1:
        featurizer.lr_scales = decay_by_stage(featurizer, hparams["layer_decay"], input_shape)
    if attends and "bf_layers" in hparams:
        attach_batchformer(featurizer, hparams, input_shape)
    return featurizer
