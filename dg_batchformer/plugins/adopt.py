"""Find the algorithms in a plug-in module, and make registered algorithms of them."""

import inspect
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from torch import nn

from dg_batchformer.algorithms import Algorithm
from dg_batchformer.callbacks.load import is_callback
from dg_batchformer.catalog.wrappers import is_wrapper
from dg_batchformer.errors import InputError
from dg_batchformer.hparams import HParam
from dg_batchformer.plugins.foreign import Checked, Foreign, Pasted
from dg_batchformer.wrappers.base import Wrapper

# Code that handles BatchFormer's twin streams refers to one of these names.
_ARGUMENTS = ("input_shape", "num_classes", "num_domains", "hparams")
_STREAMS = {
    "risk",
    "plain_risk",
    "risks",
    "risk_and_features",
    "plain_features",
    "forward_plain",
    "split_streams",
    "join_streams",
    "in_both_streams",
    "streams",
}


def public_classes(module: ModuleType) -> dict[str, type]:
    """Return the public classes by name that a module, or a module inside it, defines, or those in its ``__all__``."""
    names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    classes: dict[str, Any] = {name: getattr(module, name, None) for name in names}
    return {name: value for name, value in classes.items() if _is_of(value, module.__name__)}


def offered(module: ModuleType, *, may_lack: bool = False) -> dict[str, type[Algorithm]]:
    """Return the algorithms of a plug-in module by name; raise InputError if it has none.

    They are the public classes that the module, or a module inside it, defines with DomainBed's signature: a
    ``torch.nn.Module`` with ``update``, ``predict`` and ``__init__(input_shape, num_classes, num_domains, hparams)``.
    If the module has an ``__all__``, only the names in it count. A module may have callbacks instead.

    Args:
        may_lack: true for a module that adds something else.

    """
    written = public_classes(module)
    found = {name: adopt(name, value) for name, value in written.items() if is_algorithm(value)}
    if not found and not may_lack and not any(map(is_callback, written.values())):
        near = "".join(f"; {name} {lack}" for name, value in written.items() if (lack := _lack(value)))
        raise InputError(
            f"plug-in {module.__name__} has no algorithm: it defines no torch.nn.Module with update, predict and "
            f"__init__({', '.join(_ARGUMENTS)}){near}"
        )
    return found


def adopt(name: str, written: type) -> type[Algorithm]:
    """Return an algorithm class called ``name`` that uses the given class, which is not modified.

    Raises InputError if the class is not an algorithm, or if its name is a wrapper's or contains '+'.
    """
    if lack := _lack(written) if _has_methods(written) else "lacks update or predict":
        raise InputError(f"plug-in {name} {lack}, so it is not an algorithm")
    if is_wrapper(name) or "+" in name:
        raise InputError(f"an algorithm of a plug-in cannot be called {name}, the name of a wrapper; rename the class")
    if not issubclass(written, Algorithm):
        bases: tuple[type, ...] = (Checked, Pasted, Foreign)
    else:
        bases = (Checked, written) if _knows_streams(written) else (Checked, Pasted, written)
    facts = {"__module__": written.__module__, "__doc__": inspect.getdoc(written), "written": written}
    return type(name, bases, {**facts, "search_space": _search_space(written)})


def _is_of(value: Any, module: str) -> bool:
    """Return whether a value is a class of a module or its submodules that is not marked ``registered = False``."""
    if not inspect.isclass(value) or not vars(value).get("registered", True):
        return False
    return f"{value.__module__}.".startswith(f"{module}.")


def is_algorithm(written: type) -> bool:
    """Return whether a class has update, predict and the signature of an algorithm, and is not a wrapper."""
    return _has_methods(written) and not issubclass(written, Wrapper) and not _lack(written)


def _has_methods(written: type) -> bool:
    return all(_does_something(getattr(written, name, None)) for name in ("update", "predict"))


def _lack(written: type) -> str:
    """Return why a class with update and predict is not an algorithm; '' if it is, or if it lacks these methods."""
    if not _has_methods(written):
        return ""
    if not issubclass(written, nn.Module):
        return "is not a torch.nn.Module"
    return "" if _takes_four(written) else f"has another __init__ than __init__({', '.join(_ARGUMENTS)})"


def _does_something(method: Any) -> bool:
    """Return whether a method exists and does more than raise NotImplementedError, as an abstract base does."""
    code = getattr(method, "__code__", None)
    return callable(method) and (code is None or code.co_names != ("NotImplementedError",))


def _takes_four(value: type) -> bool:
    try:
        inspect.signature(value).bind(*_ARGUMENTS)
    except (TypeError, ValueError):
        return False
    return True


def _knows_streams(written: type[Algorithm]) -> bool:
    """Return whether a class handles twin streams itself: its code down to ``update`` refers to a name in ``_STREAMS``.

    A class that inherits ``update`` inherits this property too.
    """
    provider = next(place for place, base in enumerate(written.__mro__) if "update" in vars(base))
    methods = [method for base in written.__mro__[: provider + 1] for method in vars(base).values()]
    codes = [method.__code__ for method in methods if hasattr(method, "__code__")]
    return any(_STREAMS & set(code.co_names) for code in codes)


def _search_space(written: Any) -> Any:
    where = f"plug-in {written.__module__}"
    module, own = getattr(sys.modules.get(written.__module__), "HPARAMS", {}), getattr(written, "HPARAMS", {})
    declared = {**_declared(where, module), **_declared(f"{where}: {written.__name__}", own)}

    def search_space(cls: type[Algorithm], dataset: str) -> dict[str, HParam]:
        try:
            own = written.search_space(dataset) if hasattr(written, "search_space") else {}
        except TypeError as error:
            raise InputError(
                f"{where}: {written.__name__}.search_space must be a classmethod that takes (dataset): {error}"
            ) from error
        return {**_declared(f"{where}: {written.__name__}.search_space", own), **declared}

    return classmethod(search_space)


def _declared(where: str, given: Any) -> dict[str, HParam]:
    """Return the hparams that a module or class declares, such as ``HPARAMS = {"my_weight": 0.1}``.

    A value is an HParam, or a plain default, which random search does not vary.
    """
    if not isinstance(given, Mapping):
        raise InputError(f"{where}: HPARAMS must be a dict from names to defaults, got {given!r:.100}")
    for name, value in given.items():
        default = value.default if isinstance(value, HParam) else value
        if not isinstance(name, str) or not isinstance(default, bool | int | float | str):
            raise InputError(f"{where}: hparam {name} must be a single value or an HParam, got {value!r:.100}")
    return {name: value if isinstance(value, HParam) else HParam(value) for name, value in given.items()}
