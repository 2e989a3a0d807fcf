"""Where BatchFormer acts: on pooled features, or inside a featurizer, on every token or position behind a stage."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from dg_batchformer.errors import InputError, unknown
from dg_batchformer.networks.base import FeaturizerModule

AUTO, POOLED = "auto", "pooled"


class Insertion(NamedTuple):
    """A stage, or ``pooled``, behind which samples attend, how wide that is, and whether it gives (N, C, H, W)."""

    stage: str
    width: int
    channels_first: bool


def stage_name(featurizer: nn.Module, asked: str) -> str:
    """Return the name of a featurizer's stage, or ``pooled``; raise InputError for what it does not have.

    ``auto`` is two thirds down: ``blocks.8`` of 12 in a ViT, as released for DeiT; ``layer3`` of 4 in a ResNet.
    """
    names = _stages_with_positions(featurizer)
    if asked == POOLED or asked in names:
        return asked
    if not names:
        raise InputError(
            f"BFv2 is inserted behind a stage with positions, and {type(featurizer).__name__} has none; use BF, which "
            "attends pooled features, or another backbone"
        )
    if asked != AUTO:
        raise unknown("value of hparam bfv2_insert:", asked, [AUTO, *names, POOLED])
    return names[len(names) * 2 // 3]


def insertion(featurizer: nn.Module, asked: str, input_shape: Sequence[int]) -> Insertion:
    """Find where to insert; the width of a stage is seen in a forward of two blank inputs."""
    name = stage_name(featurizer, asked)
    if name == POOLED:
        return Insertion(POOLED, int(featurizer.n_outputs), channels_first=False)  # type: ignore[arg-type]
    assert isinstance(featurizer, FeaturizerModule)
    training = featurizer.training
    try:
        with torch.no_grad():
            _, maps = featurizer.eval().with_maps(torch.zeros(2, *input_shape))
    finally:
        featurizer.train(training)
    z = maps[list(featurizer.stages()).index(name)]
    channels = featurizer.channel_dim(z)
    return Insertion(name, z.shape[channels], channels_first=channels < z.ndim - 1)


def _stages_with_positions(featurizer: nn.Module) -> list[str]:
    """Return the names of stages, the stem left out; those of others' networks are not known."""
    if not isinstance(featurizer, FeaturizerModule) or not featurizer.sees_images:
        return []
    return list(featurizer.stages())[featurizer.has_stem :]
