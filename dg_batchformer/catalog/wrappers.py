"""Names and stages of wrappers, so that a method name can be parsed without importing torch.

Those of this package are read from the source files in ``wrappers/``, which are not imported; those of installed
packages from their entry points; and those of plug-ins are added when the plug-in is imported.
"""

import ast
from functools import cache
from pathlib import Path

from dg_batchformer.catalog.installed import installed_entry, installed_names

_FOLDER = Path(__file__).parents[1] / "wrappers"
_added: dict[str, str] = {}


def is_wrapper(name: str) -> bool:
    """Return whether a part of a name is a known wrapper."""
    return name in _added or name in _stages() or installed_entry("wrappers", name) is not None


def wrapper_names() -> list[str]:
    """Return the names of all known wrappers, sorted."""
    return sorted({*_stages(), *installed_names("wrappers"), *_added})


def averaging_wrappers() -> list[str]:
    """Return the wrappers that return other weights than the last ones."""
    return sorted(name for name, stage in {**_stages(), **_added}.items() if stage == "weights")


def returns_average(name: str) -> bool:
    """Return whether a composed name has a wrapper that returns other weights than the last ones.

    Then only the ``final`` record of a run describes the model that it returns.
    """
    return any("weights" in (_stages().get(part), _added.get(part)) for part in name.split("+"))


def own_averaging_wrappers() -> list[str]:
    """Return the wrappers of this package that average weights; they follow the updates without changing them."""
    return [name for name, stage in _stages().items() if stage == "weights"]


def add_wrapper(name: str, stage: str) -> None:
    """Make the wrapper of a plug-in known.

    Args:
        name: of its class.
        stage: what it acts on, as in ``wrappers.base.ACTS_ON``.

    """
    _added[name] = stage


@cache
def _stages() -> dict[str, str]:
    """Return what the public wrappers in ``wrappers/`` act on, by class name."""
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in sorted(_FOLDER.glob("*.py"))]
    classes = {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}
    stages = {name: _stage(name, classes) for name, node in classes.items() if _constants(node).get("registered", True)}
    return {name: stage for name, stage in stages.items() if stage and not name.startswith("_")}


def _stage(name: str, classes: dict[str, ast.ClassDef]) -> str:
    """Return ``acts_on`` of a class or its first base that sets it; '' if none does."""
    if name not in classes:
        return ""
    own = _constants(classes[name]).get("acts_on")
    if isinstance(own, str):
        return own
    bases = [base.id for base in classes[name].bases if isinstance(base, ast.Name)]
    return next(filter(None, (_stage(base, classes) for base in bases)), "")


def _constants(node: ast.ClassDef) -> dict[str, object]:
    """Return the constants that the body of a class assigns, by name."""
    assigned = [item for item in node.body if isinstance(item, ast.Assign) and isinstance(item.value, ast.Constant)]
    return {
        target.id: item.value.value
        for item in assigned
        for target in item.targets
        if isinstance(target, ast.Name) and isinstance(item.value, ast.Constant)
    }
