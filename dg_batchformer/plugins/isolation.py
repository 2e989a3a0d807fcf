"""Import a checkout in isolation, so that two checkouts with a package of one name can be used side by side.

The modules of a checkout have their names in ``sys.modules`` only while its code runs. Whoever calls that code does so
inside ``IsolatedModules.active``, which also covers imports that its functions make later.
"""

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from dg_batchformer.spec.forks import top_level_names


class IsolatedModules:
    """The modules of a checkout, which are importable only inside ``active``.

    Modules that the checkout imports from elsewhere, such as NumPy, are those of the process.

    Args:
        folder: the checkout, whose modules take precedence over installed ones.
        package: its package; modules inside are also found by their bare names, as its scripts find them, unless a
            module of that name is installed.

    """

    def __init__(self, folder: Path, package: Path) -> None:
        self.folder = folder
        self.modules: dict[str, ModuleType] = {}
        self._own = _Finder(folder, top_level_names(folder))
        self._bare = _Finder(package, top_level_names(package))
        self._depth = 0

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make the modules of the checkout importable; may be nested."""
        if self._depth == 0:
            hidden = {name: module for name, module in sys.modules.items() if _top(name) in self._own.names}
            _replace(hidden, self.modules)
            before = set(sys.modules) - self.modules.keys()
            sys.meta_path.insert(0, self._own)
            sys.meta_path.append(self._bare)
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                sys.meta_path.remove(self._own)
                sys.meta_path.remove(self._bare)
                new = {name: module for name, module in sys.modules.items() if name not in before}
                self.modules = {name: module for name, module in new.items() if self._holds(module)}
                _replace(self.modules, hidden)

    def load(self, name: str) -> Any:
        """Import a module of the checkout."""
        with self.active():
            importlib.invalidate_caches()
            return importlib.import_module(name)

    def _holds(self, module: ModuleType) -> bool:
        """Return whether a module, or a package without a file of its own, is in the checkout."""
        file = getattr(module, "__file__", None)
        places = [file] if isinstance(file, str) else list(getattr(module, "__path__", []))
        return any(Path(place).is_relative_to(self.folder) for place in places)


class _Finder:
    """Finds the top-level modules of one folder."""

    def __init__(self, folder: Path, names: set[str]) -> None:
        self.folder = folder
        self.names = names

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        if path is not None or name not in self.names:
            return None
        spec = PathFinder.find_spec(name, [str(self.folder)])
        if spec is not None and spec.loader is None:  # a folder without __init__.py would be extended by others
            spec.submodule_search_locations = list(spec.submodule_search_locations or [])
        return spec


def _top(name: str) -> str:
    return name.partition(".")[0]


def _replace(old: dict[str, ModuleType], new: dict[str, ModuleType]) -> None:
    for name in old:
        sys.modules.pop(name, None)
    sys.modules.update(new)
