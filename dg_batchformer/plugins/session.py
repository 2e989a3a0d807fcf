"""Algorithms that are defined in a notebook or script, the session, and that other processes cannot import.

Their plug-in name ``session:NAME:DIGEST`` is part of the identity of a run, so an edited class makes another run. The
digest covers the source of the class and of all functions, classes and constants of the session that it uses.
"""

import ast
import dis
import hashlib
import inspect
import linecache
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

from dg_batchformer.errors import InputError
from dg_batchformer.plugins.adopt import adopt
from dg_batchformer.plugins.extensions import Extensions
from dg_batchformer.registry import ALGORITHMS
from dg_batchformer.spec.names import SESSION, is_of_session
from dg_batchformer.wrappers.base import Wrapper

_registered: dict[str, str] = {}  # class name -> plug-in name


def register(written: type) -> str:
    """Register a class of this session as an algorithm or a wrapper, and return its plug-in name.

    The plug-in of a class that other processes can import is its module. The class replaces an earlier one of the same
    name. Raises InputError if it is neither, has no source, or has the name of another one.
    """
    name = written.__name__
    if is_importable(written):
        plugin = written.__module__
    else:
        plugin = f"{SESSION}:{name}:{hashlib.sha256(_source(written).encode()).hexdigest()[:16]}"
        replaced = [name] if is_of_session(_registered.get(name, "")) else []
        if issubclass(written, Wrapper):
            Extensions(wrappers={name: written}).register("this session", replaced=replaced)
        else:
            ALGORITHMS.add({name: adopt(name, written)}, "this session", replaced=replaced)
    _registered[name] = plugin
    return plugin


def plugin_of(name: str) -> str | None:
    """Return the plug-in name of a class that was registered in this session, else None."""
    return _registered.get(name)


def require(plugin: str) -> None:
    """Raise InputError unless the class of a session plug-in is registered in this process with the same source."""
    _, name, _ = plugin.split(":")
    if _registered.get(name) == plugin:
        return
    if name in _registered:
        raise InputError(f"the class {name} was edited since the run was trained; register the version it used")
    raise InputError(
        f"the class {name} was defined in a notebook or script, which this process cannot import; run the cell that "
        f"defines it and dg.register({name}) first, or move the class to a module and name that in plugins"
    )


def is_importable(written: type) -> bool:
    """Return whether other processes can import a class from its module."""
    module = sys.modules.get(written.__module__)
    return written.__module__ != "__main__" and getattr(module, written.__qualname__, None) is written


def _source(written: type) -> str:
    """Return the source of a class and of everything it uses of the session, without comments and formatting."""
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
        "file, with at least one method"
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
