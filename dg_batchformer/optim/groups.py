"""Parameter groups: which learning rate a parameter has, and how many parameters train."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from dg_batchformer.networks.base import FeaturizerModule
from dg_batchformer.networks.batchformer import batchformers

FEATURIZER, HEAD, BATCHFORMER = "featurizer", "head", "batchformer"


def parameter_groups(
    modules: Sequence[nn.Module], lr: float, head_lr_scale: float, bf_lr_scale: float
) -> list[dict[str, Any]]:
    """Return the parameters of some modules, each once, in groups of one learning rate; BatchFormer's come last.

    Args:
        lr: of the featurizer's last stage; stages before it have ``layer_decay`` times that of the next.
        head_lr_scale: learning rate of what is outside featurizers, over ``lr``.
        bf_lr_scale: learning rate of BatchFormer's encoders, over ``lr``.

    """
    parts = _parts(modules)
    scales = {id(p): scale for module in modules for p, scale in _stage_scales(module)}
    by_scale: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for parameter in dict.fromkeys(p for module in modules for p in module.parameters()):
        part = parts[id(parameter)]
        other = {HEAD: head_lr_scale, BATCHFORMER: bf_lr_scale}
        scale = scales.get(id(parameter), 1.0) if part == FEATURIZER else other[part]
        by_scale.setdefault((part == BATCHFORMER, scale), []).append(parameter)
    ordered = sorted(by_scale.items(), key=lambda group: group[0][0])  # stable: within a kind in the modules' order
    return [{"params": parameters, "lr": lr * scale} for (_, scale), parameters in ordered]


def describe_groups(algorithm: nn.Module) -> list[dict[str, Any]]:
    """Return for every optimizer, part and learning rate how many parameters there are, and how many train."""
    parts = _parts([algorithm])
    rows: dict[tuple[str, str, float, float], list[int]] = {}
    for name, optimizer in optimizers(algorithm):
        for group in optimizer.param_groups:
            lr, decay = group.get("initial_lr", group["lr"]), group.get("weight_decay", 0.0)
            for parameter in group["params"]:
                counts = rows.setdefault((name, parts.get(id(parameter), HEAD), lr, decay), [0, 0])
                counts[0] += parameter.numel()
                counts[1] += parameter.numel() * parameter.requires_grad
    names = ("optimizer", "part", "lr", "weight_decay")
    return [
        {**dict(zip(names, key, strict=True)), "parameters": total, "trainable": trainable}
        for key, (total, trainable) in rows.items()
    ]


def group_lines(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """Put the groups of ``describe_groups`` into lines."""
    return [
        f"{row['optimizer']}, {row['part']}: {row['trainable']:,} of {row['parameters']:,} train, lr {row['lr']:g}, "
        f"weight decay {row['weight_decay']:g}"
        for row in groups
    ]


def optimizers(algorithm: nn.Module) -> Iterator[tuple[str, Optimizer]]:
    """Yield the optimizers that an algorithm, or a module of it, holds as attributes, by their names."""
    for module in algorithm.modules():
        for name, value in vars(module).items():
            if isinstance(value, Optimizer):
                yield name, value


def featurizers(module: nn.Module) -> list[FeaturizerModule]:
    """Return every featurizer inside a module."""
    return [part for part in module.modules() if isinstance(part, FeaturizerModule)]


def _parts(modules: Sequence[nn.Module]) -> dict[int, str]:
    """Return the part that every parameter belongs to, by the parameter's id."""
    parts = {id(p): HEAD for module in modules for p in module.parameters()}
    for module in modules:
        parts |= {id(p): FEATURIZER for featurizer in featurizers(module) for p in featurizer.parameters()}
        parts |= {id(p): BATCHFORMER for layer in batchformers(module) for p in layer.parameters()}
    return parts


def _stage_scales(module: nn.Module) -> Iterator[tuple[nn.Parameter, float]]:
    for featurizer in featurizers(module):
        for name, parameter in featurizer.named_parameters():
            yield parameter, featurizer.lr_scales.get(name, 1.0)
