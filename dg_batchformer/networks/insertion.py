"""Where BatchFormer acts: on pooled features, or inside a featurizer, on every token or position behind a stage."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dg_batchformer.errors import InputError, unknown
from dg_batchformer.networks.base import FeaturizerModule

AUTO, POOLED = "auto", "pooled"


class Insertion(NamedTuple):
    """A module whose output BatchFormer attends, how wide that is, and whether channels come before positions."""

    module: nn.Module
    width: int
    channels_first: bool


def stage_name(featurizer: FeaturizerModule, asked: str) -> str:
    """Return the name of a featurizer's stage, or ``pooled``; raise InputError for what it does not have.

    ``auto`` is two thirds down: ``blocks.8`` of 12 in a ViT, as released for DeiT; ``layer3`` of 4 in a ResNet.
    """
    names = list(featurizer.stages())
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


def insertion(featurizer: FeaturizerModule, asked: str, input_shape: Sequence[int]) -> Insertion:
    """Find where to insert; the width of a stage is seen in a forward of two blank inputs."""
    name = stage_name(featurizer, asked)
    if name == POOLED:
        return Insertion(featurizer, featurizer.n_outputs, channels_first=False)
    stage = featurizer.stages()[name]
    z = _output(featurizer, stage, input_shape)  # (N, T, C), (N, C, H, W) or (N, H, W, C)
    channels_first = z.ndim == 4 and not featurizer.channels_last
    return Insertion(stage, z.shape[1] if channels_first else z.shape[-1], channels_first)


@torch.no_grad()
def _output(featurizer: FeaturizerModule, stage: nn.Module, input_shape: Sequence[int]) -> Tensor:
    seen: list[Tensor] = []
    handle = stage.register_forward_hook(lambda module, inputs, z: seen.append(z))
    training = featurizer.training
    try:
        featurizer.eval()(torch.zeros(2, *input_shape))
    finally:
        featurizer.train(training)
        handle.remove()
    return seen[0]
