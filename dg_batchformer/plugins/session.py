"""Extensions that are defined in a notebook or script, the session, and that other processes cannot import.

Their plug-in name ``session:NAME:DIGEST`` is part of the identity of a run, so an edited class makes another run. The
digest covers the source of a class or function and of all functions, classes and constants of the session that it uses,
or the file of a protocol.
"""

import ast
import dis
import hashlib
import inspect
import linecache
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from dg_batchformer.callbacks.load import is_callback
from dg_batchformer.datasets.base import Dataset
from dg_batchformer.errors import InputError
from dg_batchformer.networks.backbones import Backbone
from dg_batchformer.plugins.adopt import adopt
from dg_batchformer.plugins.extensions import Extensions
from dg_batchformer.registry import ALGORITHMS
from dg_batchformer.spec.names import SESSION, SESSION_NAME, is_of_session
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.storage.safe_read import YAML, read_bytes
from dg_batchformer.sweep.launchers.base import Launcher
from dg_batchformer.wrappers.base import Wrapper

_KINDS = {Wrapper: "wrappers", Dataset: "datasets", Launcher: "launchers"}
_registered: dict[tuple[str, str], str] = {}  # (kind, name) -> plug-in name


def register(given: Any, name: str | None = None) -> str:
    """Register an extension of this session, and return its plug-in name.

    The plug-in of a class that other processes can import is its module. An extension replaces an earlier one of the
    same name.

    Args:
        given: see ``dg_batchformer.api.register``.
        name: of a backbone or protocol.

    Raises InputError if it cannot be used, has no source, or has the name of another one.

    """
    kind, name = _kind_of(given), _name_of(given, name)
    if isinstance(given, type) and is_importable(given):
        plugin = given.__module__
    else:
        plugin = f"{SESSION}:{name}:{hashlib.sha256(_content(given)).hexdigest()[:16]}"
        replaced = [name] if is_of_session(_registered.get((kind, name), "")) else []
        if kind == "algorithms":
            ALGORITHMS.add({name: adopt(name, given)}, "this session", replaced=replaced)
        else:
            Extensions(**{kind: {name: given}}).register("this session", replaced=replaced)
    _registered[kind, name] = plugin
    return plugin


def _kind_of(given: Any) -> str:
    """Return the kind of an extension; raise InputError for what is none."""
    if isinstance(given, Backbone):
        return "backbones"
    if isinstance(given, Path):
        return "protocols"
    if is_callback(given):
        raise InputError(f"a callback is not registered: train takes callbacks=[{given.__name__}()]")
    if isinstance(given, type):
        for base, kind in _KINDS.items():
            if issubclass(given, base):
                return kind
        if hasattr(given, "update") or hasattr(given, "predict"):
            return "algorithms"
    raise InputError(
        f"{getattr(given, '__name__', repr(given)):.100} cannot be registered; give a class that is an algorithm "
        "(update and predict), a Wrapper, a Dataset or a Launcher, a networks.backbones.Backbone, or the "
        "Path of a protocol"
    )


def _name_of(given: Any, name: str | None) -> str:
    """Return the name of an extension: that of a class, or the one given."""
    if isinstance(given, type):
        if name not in (None, given.__name__):
            raise InputError(f"a class is registered under its own name, {given.__name__}; drop name={name!r}")
        return given.__name__
    if name is None:
        raise InputError("a backbone or protocol needs a name: dg.register(..., name='my-name')")
    if not re.fullmatch(SESSION_NAME, name):
        raise InputError(f"{name!r:.100} is not a name of letters, digits, '_', '-' and '.'; give another one")
    return name


def _content(given: Any) -> bytes:
    """Return what tells the versions of an extension apart."""
    if isinstance(given, Path):
        try:
            return read_bytes(given, YAML)
        except OSError as error:
            raise InputError(f"cannot read {given}: {error.strerror}") from None
    return source_of(given.build if isinstance(given, Backbone) else given).encode()


def plugins_of(spec: RunSpec, backbone: str) -> list[str]:
    """Return the plug-ins of what was registered in this session and a run, with a backbone, uses by name."""
    names = [(kind, part) for part in spec.algorithm.split("+") for kind in ("algorithms", "wrappers")]
    names += [("datasets", spec.dataset), ("protocols", spec.protocol), ("backbones", backbone)]
    return [_registered[name] for name in names if name in _registered]


def require(plugin: str) -> None:
    """Raise InputError unless a plug-in of a session is registered in this process with the same source."""
    _, name, _ = plugin.split(":")
    if plugin in _registered.values():
        return
    if any(name == registered for _, registered in _registered):
        raise InputError(f"{name} was edited since the run was trained; register the version it used")
    raise InputError(
        f"{name} was defined in a notebook or script, which this process cannot import; run the cell that defines it "
        "and the one that registers it first, or move it to a module and name that in plugins"
    )


def is_importable(written: type) -> bool:
    """Return whether other processes can import a class from its module."""
    module = sys.modules.get(written.__module__)
    return written.__module__ != "__main__" and getattr(module, written.__qualname__, None) is written


def source_of(written: Any) -> str:
    """Return the source of a class or function, with all it uses of the session, without comments and formatting."""
    parts: dict[str, str] = {}
    left: list[Any] = [written]
    while left:
        value = left.pop()
        key = f"{value.__module__}.{value.__qualname__}"
        if key in parts:
            continue
        parts[key] = _text(value)
        for name, used in _used(value):
            if isinstance(used, type | FunctionType):
                left += [used] if used.__module__ == written.__module__ else []
            elif isinstance(used, bool | int | float | str | tuple | frozenset):
                parts[f"{written.__module__}.{name} ="] = repr(used)
    return "\n".join(f"{key}\n{parts[key]}" for key in sorted(parts))


def _used(value: type | FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of the globals that a class or function uses, and of the bases of a class."""
    if isinstance(value, type):
        yield from ((base.__name__, base) for base in value.__bases__)
    for function in _functions(value):
        for name in _global_names(function.__code__):
            if name in function.__globals__:
                yield name, function.__globals__[name]


def _functions(value: type | FunctionType) -> list[FunctionType]:
    members: list[Any] = [value]
    if isinstance(value, type):
        members = [getattr(member, "__func__", getattr(member, "fget", member)) for member in vars(value).values()]
    return [member for found in members if isinstance(member := inspect.unwrap(found), FunctionType)]


def _global_names(code: CodeType) -> set[str]:
    names = {str(one.argval) for one in dis.get_instructions(code) if one.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return names.union(*(_global_names(inner) for inner in code.co_consts if isinstance(inner, CodeType)))


def _text(value: type | FunctionType) -> str:
    """Return the source of a class or function, also in a notebook, where ``inspect`` finds no source of a class."""
    for function in _functions(value):
        lines = linecache.getlines(function.__code__.co_filename, function.__globals__)
        found = _definition(lines, value.__name__, function.__code__.co_firstlineno)
        if found:
            return found
    raise InputError(
        f"the source of {value.__name__} is unknown, so its versions cannot be told apart; define it in a cell or a "
        "file, as a function with a name or a class with at least one method"
    )


def _definition(lines: list[str], name: str, line: int) -> str:
    """Return the source of the innermost definition of a name that spans a line, or ''."""
    try:
        tree = ast.parse("".join(lines))
    except SyntaxError:
        return ""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    named = [node for node in ast.walk(tree) if isinstance(node, kinds) and node.name == name]
    found = [node for node in named if _first_line(node) <= line <= (node.end_lineno or 0)]
    return ast.unparse(found[-1]) if found else ""


def _first_line(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
