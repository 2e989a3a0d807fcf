"""Freeze a featurizer up to a stage: the hparam ``freeze``."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dg_batchformer.errors import InputError, unknown
from dg_batchformer.networks.base import NOTHING, WHOLE, FeaturizerModule
from dg_batchformer.networks.batch_norm import FreezableBatchNorm
from dg_batchformer.networks.insertion import POOLED, stage_name


class _Reached(Exception):
    """Stops a forward pass at the last frozen stage."""


def check_freeze(featurizer: FeaturizerModule, upto: str, bfv2_insert: str | None) -> None:
    """Raise InputError for an unknown stage, or one after the stage where BatchFormerV2 is inserted.

    Args:
        upto: the hparam ``freeze``.
        bfv2_insert: the stage after which BatchFormerV2 is inserted; None without it.

    """
    if upto == NOTHING:
        return
    names = list(featurizer.stages())
    if upto not in (WHOLE, *names):
        raise unknown("value of hparam freeze:", upto, [NOTHING, *names, WHOLE])
    if bfv2_insert is None:
        return
    inserted = stage_name(featurizer, bfv2_insert)
    first = names[-1] if upto == WHOLE else upto
    is_behind = inserted == POOLED or (upto != WHOLE and names.index(inserted) >= names.index(upto))
    if not is_behind:
        raise InputError(
            f"BFv2 after {inserted} is inside the part frozen by freeze {upto}, so it could not be trained; set "
            f"bfv2_insert to {POOLED if upto == WHOLE else first} or later, or freeze fewer stages"
        )


def freeze(featurizer: FeaturizerModule, upto: str, input_shape: Sequence[int]) -> None:
    """Freeze a featurizer up to and including a stage: no gradients, and always in evaluation mode.

    Dropout on the pooled features stays active. Call this before BatchFormer is attached.

    Args:
        upto: ``none``, a stage name, or ``featurizer`` for all of it.

    """
    if upto == NOTHING:
        return
    layers, parameters = _prefix_parts(featurizer, upto, input_shape)
    for name, parameter in featurizer.named_parameters():
        if name in parameters:
            parameter.requires_grad_(False)
    featurizer.frozen = upto
    featurizer.frozen_layers = tuple(layers)
    featurizer.train(featurizer.training)


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of a module that are not frozen."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def _prefix_parts(featurizer: FeaturizerModule, upto: str, input_shape: Sequence[int]) -> tuple[list[str], set[str]]:
    """Return the names of the layers that run up to a stage, and of the parameters that its output depends on.

    They are found in a forward pass on the meta device, as the code between the stages of timm models is unknown.
    """
    if upto == WHOLE:
        names = [name for name, _ in featurizer.named_modules() if name not in ("", "dropout")]
        return names, {name for name, _ in featurizer.named_parameters()}
    probe = copy.deepcopy(featurizer).to("meta").train()
    if isinstance(probe, FreezableBatchNorm):
        probe.freeze_bn = False  # frozen BatchNorm is fused, and its module does not run
        probe.train()
    ran: dict[str, None] = {}
    for name, module in probe.named_modules():
        if not any(module.children()):
            module.register_forward_hook(lambda module, inputs, output, name=name: ran.setdefault(name))
    last = list(featurizer.stages()).index(upto)
    reached: list[Tensor] = []

    def stop(place: int, maps: Tensor) -> Tensor:
        if place == last:
            reached.append(maps)
            raise _Reached
        return maps

    with torch.enable_grad():
        try:
            with probe.seen_by(stop):
                probe(torch.zeros(2, *input_shape, device="meta"))
        except _Reached:
            pass
        named = dict(probe.named_parameters())
        gradients = torch.autograd.grad(reached[0].sum(), list(named.values()), allow_unused=True)
    used = {name for name, gradient in zip(named, gradients, strict=True) if gradient is not None}
    return list(ran), used
