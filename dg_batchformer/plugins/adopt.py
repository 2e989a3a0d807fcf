"""What of a module is an algorithm, and how a class that somebody wrote becomes a registered one."""

import inspect
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from torch import nn

from dg_batchformer.algorithms import Algorithm
from dg_batchformer.errors import InputError
from dg_batchformer.hparams import HParam
from dg_batchformer.plugins.foreign import Foreign, Pasted

# What knows of twins names one of these.
_STREAMS = {"risk", "plain_risk", "risks", "forward_plain", "split_streams", "in_both_streams", "streams"}


def offered(module: ModuleType) -> dict[str, type[Algorithm]]:
    """Return the algorithms of a plug-in module by name; raise InputError where it has none.

    They are the public classes that the module, or a module inside it, defines with DomainBed's signature: a
    ``torch.nn.Module`` with ``update``, ``predict`` and ``__init__(input_shape, num_classes, num_domains, hparams)``.
    ``__all__``, where the module has one, says which of them.
    """
    names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    classes: dict[str, Any] = {name: getattr(module, name, None) for name in names}
    found = {name: adopt(name, value) for name, value in classes.items() if _is_algorithm(value, module.__name__)}
    if not found:
        raise InputError(
            f"plug-in {module.__name__} has no algorithm: it defines no torch.nn.Module with update, predict and "
            "__init__(input_shape, num_classes, num_domains, hparams)"
        )
    return found


def adopt(name: str, written: type) -> type[Algorithm]:
    """Return an algorithm of that name that is the class as it was written, which stays as it is."""
    if not issubclass(written, Algorithm):
        bases: tuple[type, ...] = (Pasted, Foreign)
    else:
        bases = (written,) if _knows_streams(written) else (Pasted, written)
    facts = {"__module__": written.__module__, "__doc__": inspect.getdoc(written), "written": written}
    return type(name, bases, {**facts, "search_space": _search_space(written)})


def _is_algorithm(value: Any, module: str) -> bool:
    if not inspect.isclass(value) or not issubclass(value, nn.Module) or not vars(value).get("registered", True):
        return False
    if not f"{value.__module__}.".startswith(f"{module}."):
        return False
    methods = [getattr(value, name, None) for name in ("update", "predict")]
    return all(map(_does_something, methods)) and _takes_four(value)


def _does_something(method: Any) -> bool:
    """Whether a method is there and does more than to raise NotImplementedError, as an abstract base's does."""
    code = getattr(method, "__code__", None)
    return callable(method) and (code is None or code.co_names != ("NotImplementedError",))


def _takes_four(value: type) -> bool:
    try:
        inspect.signature(value).bind("input_shape", "num_classes", "num_domains", "hparams")
    except (TypeError, ValueError):
        return False
    return True


def _knows_streams(written: type[Algorithm]) -> bool:
    """Whether code from the class's ``update`` down names what takes twins apart.

    A class that inherits its ``update`` inherits what that knows.
    """
    provider = next(place for place, base in enumerate(written.__mro__) if "update" in vars(base))
    methods = [method for base in written.__mro__[: provider + 1] for method in vars(base).values()]
    codes = [method.__code__ for method in methods if hasattr(method, "__code__")]
    return any(_STREAMS & set(code.co_names) for code in codes)


def _search_space(written: Any) -> Any:
    declared = _declared(sys.modules[written.__module__])

    def search_space(cls: type[Algorithm], dataset: str) -> dict[str, HParam]:
        own = written.search_space(dataset) if hasattr(written, "search_space") else {}
        return {**own, **declared}

    return classmethod(search_space)


def _declared(module: ModuleType) -> dict[str, HParam]:
    """Return the hparams that a module declares beside its classes, as ``HPARAMS = {"my_weight": 0.1}``.

    A value is a default, never drawn, or a whole HParam.
    """
    given = getattr(module, "HPARAMS", {})
    if not isinstance(given, Mapping):
        raise InputError(f"plug-in {module.__name__}: HPARAMS is a dict of names to defaults, got {given!r}")
    for name, value in given.items():
        if not isinstance(value, HParam | bool | int | float | str):
            raise InputError(f"plug-in {module.__name__}: hparam {name} takes one value or an HParam, got {value!r}")
    return {name: value if isinstance(value, HParam) else HParam(value) for name, value in given.items()}
