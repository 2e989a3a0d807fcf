"""BatchNorm: freeze its statistics during training, and re-estimate them for averaged weights."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dg_batchformer.networks.base import FeaturizerModule


class FreezableBatchNorm(FeaturizerModule):
    """A featurizer whose BatchNorm statistics can be frozen; scale and shift are still trained."""

    freeze_bn: bool = False

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.freeze_bn:
            for layer in _batch_norms(self):
                layer.eval()
        return self


def has_live_batch_norm(module: nn.Module) -> bool:
    """Return whether any BatchNorm in a module updates its statistics."""
    return any(layer.training for layer in _batch_norms(module))


@torch.no_grad()
def reestimate_batch_norm(module: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the statistics of every BatchNorm in training mode by their means over batches of x, (N, ...) each.

    Needed after weight averaging, as statistics cannot be averaged (Izmailov et al., 2018, section 3.2).
    """
    layers = [layer for layer in _batch_norms(module) if layer.training]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # cumulative mean
    with _uncompiled(module):  # a cumulative mean would break the graph at every layer
        for x in batches:
            module(x)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


@contextmanager
def _uncompiled(module: nn.Module) -> Iterator[None]:
    """Disable compiled training inside the context."""
    compiled = [part for part in module.modules() if isinstance(part, FeaturizerModule) and part.compiles_training]
    for featurizer in compiled:
        featurizer.compiles_training = False
    try:
        yield
    finally:
        for featurizer in compiled:
            featurizer.compiles_training = True


@contextmanager
def batch_norm_held(module: nn.Module) -> Iterator[None]:
    """Keep BatchNorm's running statistics constant inside the context; batches are still normalized by their own."""
    layers = [layer for layer in _batch_norms(module) if layer.training and layer.track_running_stats]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


def _batch_norms(module: nn.Module) -> list[_BatchNorm]:
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
