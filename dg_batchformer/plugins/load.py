"""Import plug-in modules and forks, and register what they add."""

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from dg_batchformer.catalog.datasets import is_dataset
from dg_batchformer.errors import InputError
from dg_batchformer.plugins import checkout, fork, session
from dg_batchformer.plugins.adopt import offered
from dg_batchformer.plugins.extensions import extensions_of
from dg_batchformer.registry import ALGORITHMS
from dg_batchformer.runtime.importing import import_foreign
from dg_batchformer.spec.forks import Fork, is_fork, parse_fork, plugin_identity
from dg_batchformer.spec.names import is_of_session
from dg_batchformer.spec.run import RunSpec

_loaded: set[str] = set()  # names of modules, and identities of forks


def load_plugins(modules: Sequence[str]) -> None:
    """Import modules and forks and register their algorithms; those that are loaded already are skipped.

    ``domainbed`` is a checkout of DomainBed, whose classes are called ``domainbed/NAME``, and ``fork:PATH`` one of a
    fork. Raises InputError if one is missing, cannot be imported or has no algorithm, or if a name is taken.
    """
    for name in modules:
        if is_of_session(name):
            session.require(name)
            continue
        if is_fork(name):
            _load_fork(parse_fork(name))
            continue
        if name in _loaded:
            continue
        if name == checkout.NAME:
            found = checkout.offered(*(_import(name, f"{name}.{part}") for part in checkout.PARTS))
        else:
            module = _import(name, name)
            others = extensions_of(module)
            found = offered(module, may_lack=bool(others))
            others.register(f"plug-in {name}")
        ALGORITHMS.add(_unknown(found), f"plug-in {name}")
        _loaded.add(name)


def load_plugins_of(spec: RunSpec) -> None:
    """Import what a run needs before its names are looked up: its plug-ins, and the package of an installed dataset."""
    load_plugins(spec.plugins)
    is_dataset(spec.dataset)


def loaded_plugins() -> list[str]:
    """Return the names of modules, and the identities of forks, that this process has loaded."""
    return sorted(_loaded)


def require_plugins(modules: Sequence[str], where: Path) -> None:
    """Raise InputError unless modules are loaded already: code is not run merely because a run folder names it."""
    load_plugins([name for name in modules if is_of_session(name)])
    if missing := [name for name in modules if not is_of_session(name) and plugin_identity(name) not in _loaded]:
        names = " ".join(missing)
        raise InputError(
            f"{where} needs the plug-in {names}, which would run its code; if you trust it, give --plugins {names}"
        )


def _load_fork(asked: Fork) -> None:
    """Import a fork and register its algorithms, unless the same code is loaded already."""
    if asked.identity in _loaded:
        return
    if any(name.startswith(f"fork:{asked.name}@") for name in _loaded):
        raise InputError(
            f"another version of a fork called {asked.name} is loaded in this process; rename the folder "
            f"{asked.folder}, or start a new process if its code was edited"
        )
    ALGORITHMS.add(import_foreign(f"fork {asked.name}", "", lambda: fork.offered(asked)), f"fork {asked.folder}")
    _loaded.add(asked.identity)


def _unknown(found: dict[str, type]) -> dict[str, type]:
    """Drop classes that another plug-in has registered already, such as a package and a module in it."""
    known = {name: getattr(ALGORITHMS[name], "written", None) for name in found if name in ALGORITHMS}
    return {name: one for name, one in found.items() if vars(one)["written"] is not known.get(name)}


def _import(plugin: str, module: str) -> ModuleType:
    here = os.getcwd()  # noqa: PTH109
    if here not in sys.path:
        sys.path.append(here)  # as ``python -m`` does; workers and the installed command lack it
    importlib.invalidate_caches()
    return import_foreign(f"plug-in {plugin}", module, lambda: importlib.import_module(module))
