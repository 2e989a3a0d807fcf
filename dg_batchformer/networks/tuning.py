"""Tuning: which parameters of a featurizer train, by the hparam ``tune``, of those that ``freeze`` leaves.

``head`` and ``stages:N`` are other words for a ``freeze``: of the whole featurizer, or of all stages but the last N.
The other values choose among the parameters that are not frozen; ``lora`` adds some.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from dg_batchformer.errors import InputError, unknown
from dg_batchformer.hparams import NOTHING, WHOLE, HParam, Value
from dg_batchformer.networks.base import FeaturizerModule
from dg_batchformer.networks.lora import add_lora

ALL, HEAD, HEAD_THEN_ALL, NORMS, ATTENTION, BIAS, LORA = (
    *("all", "head", "head_then_all", "norms", "attention", "bias", "lora"),
)
_CHOICES = (ALL, HEAD, HEAD_THEN_ALL, NORMS, ATTENTION, BIAS, LORA)
_STAGES = re.compile(r"stages:([1-9]\d*)")
_ATTENTION_NAMES = {"attn", "attention", "self_attn"}  # of modules, in timm and elsewhere


class _Tune(HParam):
    """One of the choices, or ``stages:N``."""

    def parse(self, name: str, given: object) -> Value:
        if isinstance(given, str) and _STAGES.fullmatch(given):
            return given
        if not isinstance(given, str) or given not in _CHOICES:
            raise unknown(f"value of hparam {name}:", str(given), [*_CHOICES, "stages:1"], see=f"known: {self.allowed}")
        return given

    @property
    def allowed(self) -> str:
        return ", ".join([*_CHOICES, "stages:N"])


def tuning_search_space() -> dict[str, HParam]:
    """Return the hparams that say which part of a featurizer of images trains, and how fast; none is drawn."""
    return {
        "tune": _Tune(ALL, about="unfrozen parts of the featurizer that train; stages:N: its last N stages"),
        "head_steps": HParam(500, about="updates of head_then_all that train the head alone", low=0),
        "lora_rank": HParam(8, about="rank of what lora adds to the weights of attention; 0 adds nothing", low=0),
        "lora_alpha": HParam(16.0, about="lora adds lora_alpha / lora_rank times its product", low=0),
        "layer_decay": HParam(1.0, about="learning rate of a stage relative to the next one", low=0.01, high=1),
    }


def settle_freeze(featurizer: FeaturizerModule, hparams: Mapping[str, Any], *, is_given: bool) -> str:
    """Return the ``freeze`` of a run, which ``tune`` says where it is ``head`` or ``stages:N``.

    Args:
        is_given: whether a person gave ``freeze``, rather than a protocol.

    Raises InputError for stages that the featurizer does not have, and where the two contradict each other.

    """
    tune, freeze = hparams["tune"], hparams["freeze"]
    meant = _frozen_by(tune, list(featurizer.stages()))
    if meant is None:
        return freeze
    if is_given and freeze != meant:
        raise InputError(
            f"hparams disagree: tune {tune} is freeze {meant}, but freeze is {freeze}; give one of the two"
        )
    return meant


def check_tune(featurizer: FeaturizerModule, hparams: Mapping[str, Any]) -> None:
    """Raise InputError where ``tune`` leaves nothing of the featurizer to train.

    Args:
        featurizer: frozen as ``freeze`` says, and not yet tuned.

    """
    tune = hparams["tune"]
    if tune in (ALL, HEAD) or _STAGES.fullmatch(tune):
        return
    if hparams["freeze"] == WHOLE:
        raise InputError(
            f"freeze {WHOLE} leaves nothing of the featurizer for tune {tune}; set freeze {NOTHING} or a stage, or "
            f"tune {HEAD}"
        )
    if tune == HEAD_THEN_ALL:
        return
    if hparams["weights"] == "none":
        raise InputError(f"tune {tune} with random weights would keep an untrained backbone; give weights, or tune all")
    chosen = list(_lora_weights(featurizer)) if tune == LORA else _chosen(featurizer, tune)
    if not chosen:
        what = "attention" if tune == LORA else tune
        raise InputError(
            f"backbone {hparams['backbone']} has no {what} behind freeze {hparams['freeze']} to tune; set tune to all, "
            "head, head_then_all or stages:N"
        )


def tune(featurizer: FeaturizerModule, hparams: Mapping[str, Any]) -> None:
    """Leave what ``tune`` names trainable; call it when weights are loaded, and before BatchFormer is attached."""
    choice = hparams.get("tune", ALL)
    if choice not in (NORMS, ATTENTION, BIAS, LORA):
        return
    chosen = set() if choice == LORA else _chosen(featurizer, choice)
    adapted = list(_lora_weights(featurizer)) if choice == LORA else []
    for name, parameter in featurizer.named_parameters():
        if name not in chosen:
            parameter.requires_grad_(False)
    if choice == LORA:
        add_lora(adapted, hparams["lora_rank"], hparams["lora_alpha"])


def trains_head_only(hparams: Mapping[str, Any]) -> bool:
    """Return whether hparams leave nothing of the featurizer to train."""
    return hparams.get("freeze") == WHOLE or hparams.get("tune") == HEAD


def _frozen_by(tune: str, stages: list[str]) -> str | None:
    """Return the ``freeze`` that a ``tune`` means; None where it means none."""
    if tune == HEAD:
        return WHOLE
    found = _STAGES.fullmatch(tune)
    if found is None:
        return None
    count = int(found[1])
    if count >= len(stages):
        raise InputError(
            f"hparam tune is {tune}, but the backbone has {len(stages)} stages ({', '.join(stages) or 'none'}); "
            "set fewer than those, or tune all"
        )
    return stages[-count - 1]


def _chosen(featurizer: FeaturizerModule, tune: str) -> set[str]:
    """Return the names of the parameters that ``norms``, ``attention`` or ``bias`` chooses, of those not frozen."""
    open_names = {name for name, parameter in featurizer.named_parameters() if parameter.requires_grad}
    if tune == BIAS:
        return {name for name in open_names if name.rpartition(".")[2].endswith("bias")}
    inside = _norms(featurizer) if tune == NORMS else _attention(featurizer)
    recurse = tune == ATTENTION  # a layer of normalisation holds its own parameters
    names = {f"{path}.{name}" for path, module in inside for name, _ in module.named_parameters(recurse=recurse)}
    return names & open_names


def _norms(featurizer: FeaturizerModule) -> Iterator[tuple[str, nn.Module]]:
    return ((path, module) for path, module in featurizer.named_modules() if "Norm" in type(module).__name__)


def _attention(featurizer: FeaturizerModule) -> Iterator[tuple[str, nn.Module]]:
    for path, module in featurizer.named_modules():
        if isinstance(module, nn.MultiheadAttention) or path.rpartition(".")[2] in _ATTENTION_NAMES:
            yield path, module


def _lora_weights(featurizer: FeaturizerModule) -> Iterator[tuple[nn.Module, str]]:
    """Yield the matrices of attention that are not frozen, as (module, name of the parameter), each once."""
    seen = set()
    for _, attention in _attention(featurizer):
        for module in attention.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if name.endswith("weight") and parameter.ndim == 2 and parameter.requires_grad:
                    if id(parameter) not in seen:
                        yield module, name
                    seen.add(id(parameter))
