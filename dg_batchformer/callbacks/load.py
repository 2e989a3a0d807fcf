"""Callbacks by name: the built-in ones, those of installed packages, and those of plug-in modules."""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import NamedTuple

from dg_batchformer.callbacks.base import Callback
from dg_batchformer.errors import InputError, unknown

GROUP = "dg_batchformer.callbacks"  # entry points: NAME = "my_package.my_module:MyCallback"


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


def _find(name: str, plugins: Sequence[str]) -> type[Callback]:
    if name in BUILT_IN:
        package, module, found = BUILT_IN[name]
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"{name} needs the package {package}, which is not installed; pip install 'dg_batchformer[{name}]'"
            )
        return getattr(importlib.import_module(module), found)
    offered = _of_plugins(plugins)
    if name in offered:
        return offered[name]
    entries = entry_points(group=GROUP)
    if name not in entries.names:
        raise unknown("callback", name, [*BUILT_IN, *offered, *sorted(entries.names)])
    try:
        loaded = entries[name].load()
    except Exception as error:
        raise InputError(f"callback {name} of {entries[name].value} cannot be imported: {error}") from None
    if not is_callback(loaded):
        raise InputError(f"callback {name}: {entries[name].value} is not a class that extends callbacks.base.Callback")
    return loaded


def _of_plugins(plugins: Sequence[str]) -> dict[str, type[Callback]]:
    modules = [sys.modules[name] for name in plugins if name in sys.modules]
    return {name: value for module in modules for name, value in vars(module).items() if is_callback(value)}


def is_callback(value: object) -> bool:
    """Return whether a value is a callback class."""
    return isinstance(value, type) and issubclass(value, Callback) and value is not Callback
