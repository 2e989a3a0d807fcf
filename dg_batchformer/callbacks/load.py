"""Callbacks by name: the built-in ones, those of installed packages, and those of plug-in modules."""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Sequence
from typing import NamedTuple

from dg_batchformer.callbacks.base import Callback
from dg_batchformer.catalog.installed import installed_entry, installed_names
from dg_batchformer.errors import InputError, unknown
from dg_batchformer.runtime.importing import import_foreign


class _BuiltIn(NamedTuple):
    """A built-in callback: the package that it needs, and its module and class."""

    package: str
    module: str
    name: str


BUILT_IN = {
    "tensorboard": _BuiltIn("tensorboard", "dg_batchformer.callbacks.tensorboard", "TensorBoard"),
    "wandb": _BuiltIn("wandb", "dg_batchformer.callbacks.wandb", "WandB"),
    "mlflow": _BuiltIn("mlflow", "dg_batchformer.callbacks.mlflow", "MLflow"),
}


def find_callbacks(names: Sequence[str], plugins: Sequence[str] = ()) -> list[type[Callback]]:
    """Return callback classes by name; raise InputError for an unknown name or a missing package.

    Args:
        plugins: imported modules whose callbacks are also found, by class name.

    """
    return [_find(name, plugins) for name in dict.fromkeys(names)]


def describe_callbacks(plugins: Sequence[str] = ()) -> dict[str, str]:
    """Return a line for every callback by name; of those that cannot be imported, the reason.

    Args:
        plugins: imported modules, as in ``find_callbacks``.

    """
    ours = {name: f"{found.name}, with the package {found.package}" for name, found in BUILT_IN.items()}
    others = [*callbacks_of(plugins), *installed_names("callbacks")]
    return {**ours, **{name: _headline(name, plugins) for name in others if name not in ours}}


def _headline(name: str, plugins: Sequence[str]) -> str:
    try:
        return (inspect.getdoc(_find(name, plugins)) or "").partition("\n")[0]
    except InputError as error:
        return str(error)


def _find(name: str, plugins: Sequence[str]) -> type[Callback]:
    if name in BUILT_IN:
        package, module, found = BUILT_IN[name]
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"{name} needs the package {package}, which is not installed; pip install 'dg_batchformer[{name}]'"
            )
        return getattr(importlib.import_module(module), found)
    offered = callbacks_of(plugins)
    if name in offered:
        return offered[name]
    entry = installed_entry("callbacks", name)
    if entry is None:
        raise unknown("callback", name, [*BUILT_IN, *offered, *installed_names("callbacks")])
    loaded = import_foreign(f"installed callback {name}", entry.module, entry.load)
    if not is_callback(loaded):
        raise InputError(
            f"installed callback {name}: {entry.value} is not a class that extends callbacks.base.Callback"
        )
    return loaded


def callbacks_of(plugins: Sequence[str]) -> dict[str, type[Callback]]:
    """Return the callbacks of imported modules by class name."""
    modules = [sys.modules[name] for name in plugins if name in sys.modules]
    return {name: value for module in modules for name, value in vars(module).items() if is_callback(value)}


def is_callback(value: object) -> bool:
    """Return whether a value is a callback class."""
    return isinstance(value, type) and issubclass(value, Callback) and value is not Callback
