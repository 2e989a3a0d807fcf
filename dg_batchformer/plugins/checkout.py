"""The plug-in ``domainbed``: the unmodified algorithms of a DomainBed checkout, as ``domainbed/NAME``."""

import copy
from collections.abc import Sequence
from functools import wraps
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from dg_batchformer.algorithms import Algorithm
from dg_batchformer.algorithms.base import Metrics, Minibatches
from dg_batchformer.errors import InputError
from dg_batchformer.hparams import HParam
from dg_batchformer.networks.batchformer import attach_batchformer
from dg_batchformer.plugins.foreign import Checked, Foreign, Pasted
from dg_batchformer.plugins.registry_space import registry_space

NAME = "domainbed"
PARTS = ("algorithms", "hparams_registry", "networks")
_SIZES = (28, 32, 224)
# Attributes that every update writes before it reads them, by algorithm.
_REBUILT = {"Fish": ("network_inner", "optimizer_inner"), "EQRM": ("dist",)}
_RESNETS = {("resnet18", "imagenet_v1"), ("resnet50", "imagenet_v1"), ("resnet50", "ram_in1k")}


def offered(algorithms: Any, registry: Any, networks: ModuleType) -> dict[str, type[Algorithm]]:
    """Return the algorithms of a checkout by name; patch its featurizers to carry BatchFormer when hparams ask for it.

    Raises InputError if the imported package is not DomainBed.
    """
    if not isinstance(getattr(algorithms, "ALGORITHMS", None), list) or not hasattr(networks, "Featurizer"):
        raise InputError(f"plug-in {NAME}: {algorithms.__file__} lists no ALGORITHMS; take facebookresearch/DomainBed")
    let_attend(networks)
    classes = {name: algorithms.get_algorithm_class(name) for name in algorithms.ALGORITHMS}
    return {f"{NAME}/{name}": adopt(written, name, registry) for name, written in classes.items()}


def adopt(written: type, name: str, registry: Any) -> type[Algorithm]:
    """Return an algorithm ``domainbed/NAME`` that uses a class of the checkout and the hparams of its registry."""
    facts = {"__module__": written.__module__, "__doc__": written.__doc__, "written": written}
    return type(f"{NAME}/{name}", (_Upstream,), {**facts, "name": name, "hparams_registry": registry})


def let_attend(networks: Any) -> None:
    """Patch ``networks.Featurizer`` to attach BatchFormer if the hparams contain ``bf_layers``; only once."""
    build = networks.Featurizer
    if hasattr(build, "__wrapped__"):
        return

    @wraps(build)
    def featurizer(input_shape: Sequence[int], hparams: dict[str, Any]) -> nn.Module:
        built = build(input_shape, hparams)
        if "bf_layers" in hparams:
            attach_batchformer(built, hparams, input_shape)
        return built

    networks.Featurizer = featurizer


class _Upstream(Checked, Pasted, Foreign):
    """An algorithm of the checkout, with DomainBed's own networks, losses and hparams."""

    registered = False
    name: str
    hparams_registry: Any

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        """Return the hparams of the checkout's registry, plus the choice of its backbones."""
        space = registry_space(cls.hparams_registry, cls.name, dataset, "DomainBed's")
        choices = ("auto", *sorted({backbone for backbone, _ in _RESNETS}))
        return {**space, "backbone": HParam("auto", about="as DomainBed builds it; auto: by shape", choices=choices)}

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        if len(input_shape) > 1 and input_shape[-1] not in _SIZES:
            raise InputError(
                f"{NAME} has networks for images of 28, 32 and 224 pixels, these have {input_shape[-1]}; set hparam "
                "image_size"
            )
        backbone, weights = hparams.get("backbone", "auto"), hparams.get("weights")
        if backbone != "auto" and (backbone, weights) not in _RESNETS:
            raise InputError(
                f"{NAME} cannot build {backbone} with weights {weights}; it has "
                f"{', '.join(f'{backbone} with {weights}' for backbone, weights in sorted(_RESNETS))}"
            )
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.unused = {name: getattr(self.foreign, name, None) for name in _REBUILT.get(self.name, ())}

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        metrics = super().update(minibatches, unlabeled)
        for name, unused in self.unused.items():  # leftovers of the step: not state, and not all picklable
            delattr(self.foreign, name)
            setattr(self.foreign, name, copy.copy(unused))
        return metrics
