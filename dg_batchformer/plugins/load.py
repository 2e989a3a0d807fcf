"""Import plug-in modules and installed packages, and register what they add."""

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from dg_batchformer.errors import InputError
from dg_batchformer.plugins import checkout, fork, session
from dg_batchformer.plugins.adopt import adopt, offered
from dg_batchformer.plugins.extensions import extensions_of
from dg_batchformer.registry import ALGORITHMS
from dg_batchformer.spec.forks import Fork, is_fork, parse_fork, plugin_identity
from dg_batchformer.spec.names import is_of_session

GROUP = "dg_batchformer.algorithms"  # entry points: NAME = "my_package.my_module:MyAlgorithm"

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
    ALGORITHMS.add(_importing(f"fork {asked.name}", "", lambda: fork.offered(asked)), f"fork {asked.folder}")
    _loaded.add(asked.identity)


def _unknown(found: dict[str, type]) -> dict[str, type]:
    """Drop classes that another plug-in has registered already, such as a package and a module in it."""
    known = {name: getattr(ALGORITHMS[name], "written", None) for name in found if name in ALGORITHMS}
    return {name: one for name, one in found.items() if vars(one)["written"] is not known.get(name)}


def installed() -> list[str]:
    """Return the names of algorithms in the entry-point group of installed packages, sorted."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def load_installed(name: str) -> None:
    """Register the algorithm of that name from an entry point, if there is one."""
    for entry in entry_points(group=GROUP, name=name):
        ALGORITHMS.add({name: adopt(name, _entry(entry))}, f"entry point {entry.value}")


def _entry(entry: EntryPoint) -> type:
    found = _importing(f"installed algorithm {entry.name}", entry.module, entry.load)
    if not isinstance(found, type):
        raise InputError(f"installed algorithm {entry.name}: {entry.value} is not a class with update and predict")
    return found


def _import(plugin: str, module: str) -> ModuleType:
    here = os.getcwd()  # noqa: PTH109
    if here not in sys.path:
        sys.path.append(here)  # as ``python -m`` does; workers and the installed command lack it
    importlib.invalidate_caches()
    return _importing(f"plug-in {plugin}", module, lambda: importlib.import_module(module))


def _importing(what: str, module: str, load: Callable[[], Any]) -> Any:
    """Import third-party code; raise InputError for any exception."""
    try:
        return load()
    except InputError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            raise InputError(
                f"{what}: there is no module {error.name}; run from the folder that contains it, or add that folder to "
                "PYTHONPATH"
            ) from None
        raise InputError(f"{what} needs the module {error.name}, which is not installed") from None
    except (Exception, SystemExit) as error:
        *_, last = traceback.extract_tb(error.__traceback__)
        where = "" if isinstance(error, SyntaxError) else f" ({last.filename}, line {last.lineno})"  # it has both
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{what} cannot be imported: {reason}{where}") from None
