"""Algorithms: one file per method, registered automatically; wrappers compose with any of them."""

from functools import cache
from typing import Any

from dg_batchformer.algorithms.base import Algorithm
from dg_batchformer.errors import InputError
from dg_batchformer.registry import ALGORITHMS, WRAPPERS
from dg_batchformer.spec.names import canonical_name, split_name

__all__ = ["ALGORITHMS", "Algorithm", "compose", "get_algorithm_class"]


def get_algorithm_class(name: str) -> type[Algorithm]:
    """Return the class of a composed name such as ``SWAD+CORAL+BF``; the order of the parts does not matter.

    Raises InputError for unknown parts and for two wrappers that act on the same.
    """
    return compose(canonical_name(name), ALGORITHMS[split_name(name)[0]])


def compose(name: str, algorithm: type[Algorithm]) -> type[Algorithm]:
    """Return the class of a composed name around the class of its algorithm."""
    base, wrappers = split_name(name)
    classes: list[Any] = [algorithm, *(WRAPPERS[part] for part in wrappers)]
    return _composed(name if wrappers else base, *classes)


@cache
def _composed(name: str, algorithm: type[Algorithm], *wrappers: Any) -> type[Algorithm]:
    composed = algorithm
    taken: dict[str, type] = {}
    for wrapper in sorted(wrappers, key=lambda wrapper: wrapper.order()):
        if wrapper.acts_on in taken:
            raise InputError(
                f"{name} combines {taken[wrapper.acts_on].__name__} and {wrapper.__name__}, which both act on the "
                f"{wrapper.acts_on}; a name can have only one of them"
            )
        taken[wrapper.acts_on] = wrapper
        composed = wrapper.around(composed)
    composed.__qualname__ = composed.__name__ = name
    return composed
