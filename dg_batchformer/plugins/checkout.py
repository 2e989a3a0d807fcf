"""A checkout of DomainBed on the Python path as a plug-in: its classes, unmodified, as ``domainbed/NAME``."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import wraps
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from dg_batchformer.algorithms import Algorithm
from dg_batchformer.algorithms.base import Metrics, Minibatches
from dg_batchformer.catalog.datasets import dataset_facts
from dg_batchformer.errors import InputError
from dg_batchformer.hparams import HParam, Value
from dg_batchformer.networks.batchformer import attach_batchformer
from dg_batchformer.plugins.foreign import Checked, Foreign, Pasted

NAME = "domainbed"
PARTS = ("algorithms", "hparams_registry", "networks")
_SEEDS = range(1, 9)  # of draws that are looked at to see what is drawn at all
_SIZES = (28, 32, 224)
# Attributes that every update writes before it reads them.
_REBUILT = {"Fish": ("network_inner", "optimizer_inner"), "EQRM": ("dist",)}
_RESNETS = {("resnet18", "imagenet_v1"), ("resnet50", "imagenet_v1"), ("resnet50", "ram_in1k")}


def offered(algorithms: Any, registry: Any, networks: ModuleType) -> dict[str, type[Algorithm]]:
    """Return the algorithms of a checkout by name; its featurizers carry BatchFormer from now on, where asked to.

    Raises InputError for something that is called domainbed and has no list of algorithms.
    """
    if not isinstance(getattr(algorithms, "ALGORITHMS", None), list) or not hasattr(networks, "Featurizer"):
        raise InputError(f"plug-in {NAME}: {algorithms.__file__} lists no ALGORITHMS; take facebookresearch/DomainBed")
    let_attend(networks)
    classes = {name: algorithms.get_algorithm_class(name) for name in algorithms.ALGORITHMS}
    return {f"{NAME}/{name}": adopt(written, name, registry) for name, written in classes.items()}


def adopt(written: type, name: str, registry: Any) -> type[Algorithm]:
    """Return a class of a checkout as an algorithm ``domainbed/NAME``, with the hparams of its registry."""
    facts = {"__module__": written.__module__, "__doc__": written.__doc__, "written": written}
    return type(f"{NAME}/{name}", (_Upstream,), {**facts, "name": name, "hparams_registry": registry})


def let_attend(networks: Any) -> None:
    """Make a checkout's featurizers carry BatchFormer where the hparams hold those of BatchFormer."""
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
    """A class of a checkout: networks, losses and hparams are DomainBed's own."""

    registered = False
    name: str
    hparams_registry: Any

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        """Return the hparams of the checkout's registry, and the backbones that its networks have.

        Small datasets that DomainBed does not know get what it gives to small images.
        """
        known = "Debug28" if dataset_facts(dataset).small else dataset
        defaults = cls.hparams_registry.default_hparams(cls.name, known)
        draws = [cls.hparams_registry.random_hparams(cls.name, known, seed) for seed in _SEEDS]
        choices = ("auto", *sorted({backbone for backbone, _ in _RESNETS}))
        space = {name: _hparam(cls, known, name, value, draws) for name, value in defaults.items()}
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
        for name, unused in self.unused.items():  # what is left of it is no state, nor what a checkpoint could keep
            delattr(self.foreign, name)
            setattr(self.foreign, name, copy.copy(unused))
        return metrics


@dataclass(frozen=True)
class _Registered(HParam):
    """A hparam of the checkout's registry, which draws it by the same seed as ours draws."""

    registry: Any = None
    algorithm: str = ""
    dataset: str = ""

    def sample(self, name: str, seed: int) -> Value:
        return _plain(self.registry.random_hparams(self.algorithm, self.dataset, seed)[name])


def _hparam(cls: Any, dataset: str, name: str, default: Any, draws: Sequence[dict[str, Any]]) -> HParam:
    value, drawn = _plain(default), [_plain(draw[name]) for draw in draws]
    if isinstance(value, int) and any(isinstance(draw, float) for draw in drawn):
        value = float(value)
    draw = None if set(drawn) == {value} else _by_registry
    return _Registered(value, draw, "DomainBed's", registry=cls.hparams_registry, algorithm=cls.name, dataset=dataset)


def _by_registry(rng: Any) -> Any:
    """Say that a hparam is drawn; ``_Registered.sample`` draws it."""
    raise NotImplementedError


def _plain(value: Any) -> Value:
    """Return a value in Python's own type: the registry has NumPy's, which JSON lacks."""
    return value.item() if hasattr(value, "item") else value
