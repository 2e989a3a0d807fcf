"""Extensions that installed packages announce by entry points, in a group for each kind.

A package announces ``MyMethod = "my_package.my_module:MyMethod"`` in the group ``dg_batchformer.algorithms``. Names are
known without importing the package; it is imported when a command looks up the name.
"""

import importlib
import os
import sys
from functools import cache
from importlib.metadata import EntryPoint, distributions

KINDS = ("algorithms", "wrappers", "datasets", "backbones", "protocols", "launchers", "callbacks")
_GROUPS = {f"dg_batchformer.{kind}": kind for kind in KINDS}


def installed_names(kind: str) -> list[str]:
    """Return the names that installed packages announce for a kind, sorted."""
    return sorted(entries().get(kind, {}))


def installed_entry(kind: str, name: str) -> EntryPoint | None:
    """Return the entry point of a name; None if no installed package announces it."""
    return entries().get(kind, {}).get(name)


def load_installed(kind: str, name: str) -> bool:
    """Import and register what an installed package announces under a name; return whether there is such a package.

    Raises InputError if it cannot be imported or used.
    """
    if installed_entry(kind, name) is None:
        return False
    importlib.import_module("dg_batchformer.plugins.installed").register(kind, name)
    return True


@cache
def entries() -> dict[str, dict[str, EntryPoint]]:
    """Return the entry points of each kind by name.

    As for modules, the first on the path wins. The working folder is left out, as its files may be untrusted.
    """
    here = os.getcwd()  # noqa: PTH109
    found: dict[str, dict[str, EntryPoint]] = {kind: {} for kind in KINDS}
    for distribution in distributions(path=[place for place in sys.path if place not in ("", here)]):
        for entry in distribution.entry_points:
            if entry.group in _GROUPS:
                found[_GROUPS[entry.group]].setdefault(entry.name, entry)
    return found
