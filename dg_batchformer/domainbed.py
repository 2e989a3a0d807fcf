"""Wrappers for DomainBed: ``install`` adds ``NAME+BF`` and other compositions to a checkout.

Two lines at the end of the checkout's ``domainbed/__init__.py`` make them available in its scripts, such as ``train``
and ``sweep``, and in the processes that these start::

    import sys, dg_batchformer.domainbed
    dg_batchformer.domainbed.install(sys.modules[__name__])
"""

import importlib
from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any

from dg_batchformer.algorithms import compose
from dg_batchformer.errors import InputError
from dg_batchformer.plugins import checkout
from dg_batchformer.registry import WRAPPERS
from dg_batchformer.spec.names import canonical_name, split_name
from dg_batchformer.text.command import command
from dg_batchformer.wrappers.base import Wrapper

__all__ = ["install"]


def install(domainbed: ModuleType) -> None:
    """Make the wrappers that DomainBed's training loop supports available around all algorithms of a checkout.

    ``ALGORITHMS`` of ``domainbed.algorithms`` gets every ``NAME+WRAPPER``, and ``get_algorithm_class`` accepts any
    composition; ``domainbed.hparams_registry`` adds the hparams of wrappers, at their defaults, to those of NAME. Plain
    names behave as before. A wrapper that the loop does not support, such as SWAD, raises InputError. Installing twice
    has no further effect.
    """
    algorithms, registry, networks = (_part(domainbed, part) for part in checkout.PARTS)
    build = algorithms.get_algorithm_class
    if hasattr(build, "__wrapped__"):
        return
    checkout.let_attend(networks)
    drivable = [name for name in WRAPPERS if not _needs_our_loop(WRAPPERS[name])]
    algorithms.ALGORITHMS += [f"{name}+{wrapper}" for wrapper in drivable for name in algorithms.ALGORITHMS]

    @wraps(build)
    def get_algorithm_class(name: str) -> type:
        base, wrappers = _split(name)
        if not wrappers:
            return build(name)
        theirs: Any = checkout.adopt(build(base), base, registry)
        composed = compose(canonical_name(name), theirs)
        part: type = composed
        while issubclass(part, Wrapper):
            part.predicts_returned = True
            part = part.inner_class
        return composed

    algorithms.get_algorithm_class = get_algorithm_class
    registry.default_hparams = _with_settings(registry.default_hparams)
    registry.random_hparams = _with_settings(registry.random_hparams)


def _part(domainbed: ModuleType, name: str) -> Any:
    return importlib.import_module(f"{domainbed.__name__}.{name}")


def _needs_our_loop(wrapper: type[Wrapper]) -> bool:
    """Return whether a wrapper needs the results of evaluations, or replaces its model at the end of training."""
    ends_otherwise = wrapper.finalize is not Wrapper.finalize and wrapper.predict is Wrapper.predict
    return wrapper.observes() or ends_otherwise


def _split(name: str) -> tuple[str, tuple[str, ...]]:
    """Split a composed name; raise InputError for a wrapper that DomainBed's loop does not support."""
    base, wrappers = split_name(name)
    for wrapper in wrappers:
        if _needs_our_loop(WRAPPERS[wrapper]):
            raise InputError(
                f"{wrapper} cannot run in DomainBed's loop, which passes it no validation loss and no labels, and "
                f"never finalizes its model; run it here: {_here(name, base)}"
            )
    return base, wrappers


def _here(name: str, base: str) -> str:
    """Return the command that trains a composed name of DomainBed's algorithm in our loop."""
    return command("train", plugins=checkout.NAME, algorithm=name.replace(base, f"{checkout.NAME}/{base}"))


def _with_settings(hparams: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Extend a function of DomainBed's hparams registry to composed names."""

    @wraps(hparams)
    def composed(algorithm: str, dataset: str, *seed: int) -> dict[str, Any]:
        base, wrappers = _split(algorithm)
        spaces = [WRAPPERS[wrapper].settings(dataset) for wrapper in wrappers]
        settings = {name: hparam.default for space in spaces for name, hparam in space.items()}
        return {**hparams(base, dataset, *seed), **settings}

    return composed
