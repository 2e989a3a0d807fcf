"""Registries of plug-in classes by name; a class is registered by being defined in a module of its package."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from dg_batchformer.catalog.installed import installed_names, load_installed
from dg_batchformer.catalog.wrappers import wrapper_names
from dg_batchformer.errors import InputError, unknown
from dg_batchformer.text.command import command


class Registry:
    """The plug-in classes of one kind, found in the modules of one package.

    Every public class that is defined in such a module and derives from ``base`` is registered, unless it sets
    ``registered = False`` (abstract bases). Modules are imported at the first lookup, installed packages when a name of
    theirs is looked up.

    Args:
        kind: name of the kind in messages, such as ``algorithm``.
        package: dotted name of the package that is scanned.
        base: dotted ``module:Class`` of the base class.
        near: returns names of another kind, which are also suggested for an unknown name.

    """

    def __init__(
        self,
        kind: str,
        package: str,
        base: str,
        near: Callable[[], Sequence[str]] = list,
    ) -> None:
        self.kind = kind
        self.package = package
        self.base = base
        self.near = near

    def __getitem__(self, name: str) -> Any:
        if name not in self._classes and not load_installed(f"{self.kind}s", name):
            known = [*self, *installed_names(f"{self.kind}s"), *self.near()]
            raise unknown(self.kind, name, known, see=command("list", f"{self.kind}s"))
        return self._classes[name]

    def __contains__(self, name: object) -> bool:
        return name in self._classes

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __len__(self) -> int:
        return len(self._classes)

    def add(self, classes: Mapping[str, type], source: str, *, replaced: Collection[str] = ()) -> None:
        """Register classes from outside the package; raise InputError for a name that is taken.

        Args:
            source: where they are from, for messages.
            replaced: names that may be taken: their classes are replaced.

        """
        for name in classes:
            if name in self._classes and name not in replaced:
                raise InputError(
                    f"{source} has the {self.kind} {name}, but {self._classes[name].__module__} has one of that name; "
                    "rename it, or leave it out of the module's __all__"
                )
        self._classes.update(classes)

    @cached_property
    def _classes(self) -> dict[str, type]:
        base = _dotted(self.base)
        found: dict[str, type] = {}
        package = importlib.import_module(self.package)
        for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda info: info.name):
            module = importlib.import_module(f"{self.package}.{info.name}")
            for name, value in vars(module).items():
                if not _offers(module.__name__, name, value, base):
                    continue
                if name in found:
                    raise InputError(
                        f"two {self.kind}s are called {name}: {found[name].__module__} and {module.__name__}"
                    )
                found[name] = value
        return dict(sorted(found.items()))


def _dotted(path: str) -> Any:
    """Import ``name`` of ``module:name``."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _offers(module: str, name: str, value: object, base: type) -> bool:
    return (
        inspect.isclass(value)
        and issubclass(value, base)
        and value is not base
        and value.__module__ == module
        and not name.startswith("_")
        and vars(value).get("registered", True)
    )


ALGORITHMS = Registry(
    "algorithm",
    "dg_batchformer.algorithms",
    "dg_batchformer.algorithms.base:Algorithm",
    near=wrapper_names,
)
WRAPPERS = Registry("wrapper", "dg_batchformer.wrappers", "dg_batchformer.wrappers.base:Wrapper")
DATASETS = Registry("dataset", "dg_batchformer.datasets", "dg_batchformer.datasets.base:Dataset")
