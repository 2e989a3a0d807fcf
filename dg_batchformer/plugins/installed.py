"""Import and register what installed packages announce by entry points."""

from collections.abc import Callable
from typing import Any

from dg_batchformer.catalog.installed import installed_entry
from dg_batchformer.datasets.base import Dataset
from dg_batchformer.errors import InputError
from dg_batchformer.networks.backbones import Backbone
from dg_batchformer.plugins.adopt import adopt
from dg_batchformer.plugins.extensions import Extensions
from dg_batchformer.registry import ALGORITHMS
from dg_batchformer.runtime.importing import import_foreign
from dg_batchformer.sweep.launchers.base import Launcher
from dg_batchformer.wrappers.base import Wrapper


def register(kind: str, name: str) -> None:
    """Register the extension of a kind that an installed package announces under a name.

    Raises InputError if it cannot be imported, or is of another kind.
    """
    entry = installed_entry(kind, name)
    assert entry is not None
    what = f"installed {kind.removesuffix('s')} {name}"
    found = import_foreign(what, entry.module, entry.load)
    is_of_kind, wanted, add = _KINDS[kind]
    if not is_of_kind(found):
        raise InputError(f"{what}: {entry.value} is not {wanted}")
    add(name, found, f"entry point {entry.value}")


def _extends(base: type) -> Callable[[Any], bool]:
    return lambda found: isinstance(found, type) and issubclass(found, base)


def _add_algorithm(name: str, found: type, source: str) -> None:
    ALGORITHMS.add({name: adopt(name, found)}, source)


# By kind: whether an object is of it, what it must be, and how it is registered by name and source.
_KINDS: dict[str, tuple[Callable[[Any], bool], str, Callable[[str, Any, str], None]]] = {
    "algorithms": (
        lambda found: isinstance(found, type),
        "a class with update and predict",
        _add_algorithm,
    ),
    "wrappers": (
        _extends(Wrapper),
        "a class that extends wrappers.base.Wrapper",
        lambda name, found, source: Extensions(wrappers={name: found}).register(source),
    ),
    "datasets": (
        _extends(Dataset),
        "a class that extends datasets.base.Dataset",
        lambda name, found, source: Extensions(datasets={name: found}).register(source),
    ),
    "backbones": (
        lambda found: isinstance(found, Backbone),
        "a networks.backbones.Backbone",
        lambda name, found, source: Extensions(backbones={name: found}).register(source),
    ),
    "launchers": (
        _extends(Launcher),
        "a class that extends sweep.launchers.base.Launcher",
        lambda name, found, source: Extensions(launchers={name: found}).register(source),
    ),
}
