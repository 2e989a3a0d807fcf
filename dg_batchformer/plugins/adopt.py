"""What of a module is an algorithm, and how a class that somebody wrote becomes a registered one."""

import inspect
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from torch import nn

from dg_batchformer.algorithms import Algorithm
from dg_batchformer.catalog.datasets import WRAPPER_NAMES
from dg_batchformer.errors import InputError
from dg_batchformer.hparams import HParam
from dg_batchformer.plugins.foreign import Checked, Foreign, Pasted
from dg_batchformer.wrappers.base import Wrapper

# What knows of twins names one of these.
_ARGUMENTS = ("input_shape", "num_classes", "num_domains", "hparams")
_STREAMS = {"risk", "plain_risk", "risks", "forward_plain", "split_streams", "in_both_streams", "streams"}


def offered(module: ModuleType) -> dict[str, type[Algorithm]]:
    """Return the algorithms of a plug-in module by name; raise InputError where it has none.

    They are the public classes that the module, or a module inside it, defines with DomainBed's signature: a
    ``torch.nn.Module`` with ``update``, ``predict`` and ``__init__(input_shape, num_classes, num_domains, hparams)``.
    ``__all__``, where the module has one, says which of them.
    """
    names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    classes: dict[str, Any] = {name: getattr(module, name, None) for name in names}
    written = {name: value for name, value in classes.items() if _is_of(value, module.__name__)}
    found = {name: adopt(name, value) for name, value in written.items() if _is_algorithm(value)}
    if not found:
        near = "".join(f"; {name} {lack}" for name, value in written.items() if (lack := _lack(value)))
        raise InputError(
            f"plug-in {module.__name__} has no algorithm: it defines no torch.nn.Module with update, predict and "
            f"__init__({', '.join(_ARGUMENTS)}){near}"
        )
    return found


def adopt(name: str, written: type) -> type[Algorithm]:
    """Return an algorithm of that name that is the class as it was written, which stays as it is.

    Raises InputError for what is no algorithm, and for a name that would mean something else.
    """
    if lack := _lack(written):
        raise InputError(f"plug-in {name} {lack}, so it is no algorithm")
    if name in WRAPPER_NAMES or "+" in name:
        raise InputError(f"an algorithm of a plug-in cannot be called {name}: that names a wrapper; rename the class")
    if not issubclass(written, Algorithm):
        bases: tuple[type, ...] = (Checked, Pasted, Foreign)
    else:
        bases = (Checked, written) if _knows_streams(written) else (Checked, Pasted, written)
    facts = {"__module__": written.__module__, "__doc__": inspect.getdoc(written), "written": written}
    return type(name, bases, {**facts, "search_space": _search_space(written)})


def _is_of(value: Any, module: str) -> bool:
    """Return whether a value is a class that a module, or one inside it, defines and offers."""
    if not inspect.isclass(value) or not vars(value).get("registered", True):
        return False
    return f"{value.__module__}.".startswith(f"{module}.")


def _is_algorithm(written: type) -> bool:
    return _has_methods(written) and not _lack(written)


def _has_methods(written: type) -> bool:
    return all(_does_something(getattr(written, name, None)) for name in ("update", "predict"))


def _lack(written: type) -> str:
    """Return what makes a class with update and predict no algorithm; '' where it is one, or something else."""
    if not _has_methods(written):
        return ""
    if issubclass(written, Wrapper):
        return "is a wrapper, which a plug-in cannot add"
    if not issubclass(written, nn.Module):
        return "is no torch.nn.Module"
    return "" if _takes_four(written) else f"has another __init__ than __init__({', '.join(_ARGUMENTS)})"


def _does_something(method: Any) -> bool:
    """Return whether a method is there and does more than to raise NotImplementedError, as an abstract base's does."""
    code = getattr(method, "__code__", None)
    return callable(method) and (code is None or code.co_names != ("NotImplementedError",))


def _takes_four(value: type) -> bool:
    try:
        inspect.signature(value).bind(*_ARGUMENTS)
    except (TypeError, ValueError):
        return False
    return True


def _knows_streams(written: type[Algorithm]) -> bool:
    """Return whether code from the class's ``update`` down names what takes twins apart.

    A class that inherits its ``update`` inherits what that knows.
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
                f"{where}: {written.__name__}.search_space is no classmethod (dataset): {error}"
            ) from error
        return {**_declared(f"{where}: {written.__name__}.search_space", own), **declared}

    return classmethod(search_space)


def _declared(where: str, given: Any) -> dict[str, HParam]:
    """Return the hparams that a module or a class declares, as ``HPARAMS = {"my_weight": 0.1}``.

    A value is a default, never drawn, or a whole HParam.
    """
    if not isinstance(given, Mapping):
        raise InputError(f"{where}: HPARAMS is a dict of names to defaults, got {given!r:.100}")
    for name, value in given.items():
        default = value.default if isinstance(value, HParam) else value
        if not isinstance(name, str) or not isinstance(default, bool | int | float | str):
            raise InputError(f"{where}: hparam {name} takes one value or an HParam, got {value!r:.100}")
    return {name: value if isinstance(value, HParam) else HParam(value) for name, value in given.items()}
