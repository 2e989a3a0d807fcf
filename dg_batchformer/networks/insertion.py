"""Insertion point of BatchFormer: the pooled features, or every token or position after a stage of the featurizer."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from dg_batchformer.errors import InputError, unknown
from dg_batchformer.networks.base import FeaturizerModule

AUTO, POOLED = "auto", "pooled"


class Insertion(NamedTuple):
    """A stage or ``pooled``, its number of channels, and whether it returns (N, C, H, W)."""

    stage: str
    width: int
    channels_first: bool


def stage_name(featurizer: nn.Module, asked: str) -> str:
    """Resolve a stage name or ``pooled``; raise InputError if the featurizer has no such stage.

    ``auto`` is two thirds of the depth: ``blocks.8`` of 12 in a ViT, as released for DeiT; ``layer3`` in a ResNet.
    """
    names = _stages_with_positions(featurizer)
    if asked == POOLED or asked in names:
        return asked
    if not names:
        raise InputError(
            f"BFv2 is inserted after a stage with positions, but {type(featurizer).__name__} has none; use BF, which "
            "works on pooled features, or another backbone"
        )
    if asked != AUTO:
        raise unknown("value of hparam bfv2_insert:", asked, [AUTO, *names, POOLED])
    return names[len(names) * 2 // 3]


def insertion(featurizer: nn.Module, asked: str, input_shape: Sequence[int]) -> Insertion:
    """Find the insertion point; the width of a stage is measured in a forward pass on two dummy inputs."""
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
    """Return the names of stages without the stem; none for third-party networks."""
    if not isinstance(featurizer, FeaturizerModule) or not featurizer.sees_images:
        return []
    return list(featurizer.stages())[featurizer.has_stem :]
