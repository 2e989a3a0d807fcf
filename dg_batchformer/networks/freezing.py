"""Freeze a featurizer up to a stage: the hparam ``freeze``."""

import copy
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dg_batchformer.errors import InputError, unknown
from dg_batchformer.hparams import NOTHING, WHOLE
from dg_batchformer.networks.base import FeaturizerModule
from dg_batchformer.networks.batch_norm import FreezableBatchNorm
from dg_batchformer.networks.insertion import POOLED, stage_name


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
    featurizer.frozen_parameters = tuple(sorted(parameters))
    featurizer.train(featurizer.training)


def prefix_state(featurizer: FeaturizerModule) -> dict[str, Tensor]:
    """Return the parameters and buffers of the frozen prefix, sorted by name.

    Buffers of the featurizer itself, which normalize images, belong to every prefix, also those outside its state dict.
    """
    state = {**featurizer.state_dict(), **dict(featurizer.named_buffers())}
    names = {name for name in state if "." not in name or name.rpartition(".")[0] in featurizer.frozen_layers}
    return {name: state[name] for name in sorted(names.union(featurizer.frozen_parameters)) if name in state}


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of a module that are not frozen."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def decay_by_stage(featurizer: FeaturizerModule, decay: float, input_shape: Sequence[int]) -> dict[str, float]:
    """Return the learning rate of parameters over that of what follows the last stage, by name.

    As in BEiT (Bao et al., 2022): of L stages, the last has ``decay``, the first ``decay ** L``. Parameters before the
    first stage, such as a patch embedding, have its rate.
    """
    seen: set[str] = set()
    scales: dict[str, float] = {}
    places = range(len(featurizer.stages()))
    for place, part in zip(places, _reached_parts(featurizer, places, input_shape), strict=True):
        scales |= {name: decay ** (len(places) - place) for name in part.parameters - seen}
        seen |= part.parameters
    return scales


class _Reached(NamedTuple):
    """Names of the layers that run up to a stage, and of the parameters that its output depends on."""

    layers: list[str]
    parameters: set[str]


def _prefix_parts(featurizer: FeaturizerModule, upto: str, input_shape: Sequence[int]) -> _Reached:
    """Return what belongs to the prefix up to a stage, or to the whole featurizer."""
    if upto == WHOLE:
        return _Reached(featurizer.layer_names(), {name for name, _ in featurizer.named_parameters()})
    [part] = _reached_parts(featurizer, [list(featurizer.stages()).index(upto)], input_shape)
    return part


class _Stop(Exception):
    """Stops a forward pass at the last stage that is asked for."""


def _reached_parts(featurizer: FeaturizerModule, places: Sequence[int], input_shape: Sequence[int]) -> list[_Reached]:
    """Return what runs up to each of some stages, counted from 0 and in order.

    They are found in a forward pass on the meta device, as the code between the stages of timm models is unknown.
    """
    probe = copy.deepcopy(featurizer).to("meta").train().requires_grad_(True)
    if isinstance(probe, FreezableBatchNorm):
        probe.freeze_bn = False  # frozen BatchNorm is fused, and its module does not run
        probe.train()
    ran: dict[str, None] = {}
    for name, module in probe.named_modules():
        if not any(module.children()):
            module.register_forward_hook(lambda module, inputs, output, name=name: ran.setdefault(name))
    reached: list[_Reached] = []

    def look(place: int, maps: Tensor) -> Tensor:
        if place in places:  # used parameters now: layers that follow may change maps in place
            reached.append(_Reached(list(ran), _used(probe, maps)))
        if place == places[-1]:
            raise _Stop
        return maps

    with torch.enable_grad(), probe.seen_by(look), suppress(_Stop):
        probe(torch.zeros(2, *input_shape, device="meta"))
    return reached


def _used(probe: FeaturizerModule, maps: Tensor) -> set[str]:
    if not maps.requires_grad:  # of a stage without parameters, such as a pooling layer
        return set()
    named = dict(probe.named_parameters())
    gradients = torch.autograd.grad(maps.sum(), list(named.values()), allow_unused=True, retain_graph=True)
    return {name for name, gradient in zip(named, gradients, strict=True) if gradient is not None}
