"""Hparams of DomainBed's registries, and of those in forks, as a search space."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dg_batchformer.catalog.datasets import dataset_facts
from dg_batchformer.hparams import HParam, Value

_SEEDS = range(1, 9)  # sample draws, to detect which hparams random search varies
_KINDS = (bool, int, float, str)


def registry_space(registry: Any, algorithm: str, dataset: str, about: str) -> dict[str, HParam]:
    """Return the hparams of a registry for an algorithm; those that are not single values are left out.

    Small datasets that DomainBed does not know get its hparams for small images.

    Args:
        registry: has ``default_hparams(algorithm, dataset)`` and ``random_hparams(algorithm, dataset, seed)``.
        algorithm: its name in the registry.
        dataset: a name of ours.
        about: description of every hparam.

    """
    known = "Debug28" if dataset_facts(dataset).small else dataset
    defaults = registry.default_hparams(algorithm, known)
    draws = [registry.random_hparams(algorithm, known, seed) for seed in _SEEDS]
    return {
        name: _hparam(registry, algorithm, known, name, [_plain(given[name]) for given in (defaults, *draws)], about)
        for name in defaults
        if isinstance(_plain(defaults[name]), _KINDS)
    }


@dataclass(frozen=True)
class _Registered(HParam):
    """A hparam of a registry, which draws its value from the same seed."""

    registry: Any = None
    algorithm: str = ""
    dataset: str = ""

    def sample(self, name: str, seed: int) -> Value:
        return _plain(self.registry.random_hparams(self.algorithm, self.dataset, seed)[name])


def _hparam(registry: Any, algorithm: str, dataset: str, name: str, values: Sequence[Value], about: str) -> HParam:
    default, *drawn = values
    if isinstance(default, int) and any(isinstance(draw, float) for draw in drawn):
        default = float(default)
    draw = None if set(drawn) == {default} else _by_registry
    return _Registered(default, draw, about, registry=registry, algorithm=algorithm, dataset=dataset)


def _by_registry(rng: Any) -> Any:
    """Mark a hparam as drawn; ``_Registered.sample`` does the drawing."""
    raise NotImplementedError


def _plain(value: Any) -> Any:
    """Convert a NumPy scalar of the registry to a Python one, for JSON."""
    return value.item() if hasattr(value, "item") else value
