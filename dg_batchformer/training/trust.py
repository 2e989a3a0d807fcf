"""Validate untrusted checkpoints: they may set only state that a newly built algorithm has, by name and type.

Names are looked up in the captured state of the built algorithm, never in the algorithm itself. Values are tensors,
numbers, strings and containers of these.
"""

import dis
import inspect
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from dg_batchformer.errors import MALFORMED, InputError
from dg_batchformer.training.encoding import KIND, PLAIN, SKIP, decode, encode

_NUMBERS = (bool, int, float)
_OBJECTS = ("generator", "random", "numpy", "stateful", "object")
_SEQUENCES = ("list", "tuple", "set", "deque")
_NUMPY_POSITIONS = 624  # larger positions of its generator would read out of bounds


class Refused(InputError):
    """A state that this algorithm cannot have saved."""


def refuse_foreign(algorithm: nn.Module, state: Any, built: Mapping[str, Any]) -> None:
    """Raise Refused, with the first difference, unless a state has the names and types of a built algorithm.

    Args:
        algorithm: newly built.
        state: to validate.
        built: captured state of the algorithm.

    """
    with _malformed_is_refused():
        _refuse_foreign_tensors(state["modules"], built["modules"], {name for name, _ in algorithm.named_buffers()})
        modules = dict(algorithm.named_modules())
        for path, kept in state["attributes"].items():
            if path not in modules:
                raise Refused(f"the algorithm has no module {path!s:.80}")
            place = f"{path}." if path else ""
            _refuse_foreign_attributes(kept, built["attributes"].get(path, {}), modules[path], place)


def refuse_foreign_attributes(algorithm: nn.Module, state: Any, built: Mapping[str, Any]) -> None:
    """Raise Refused as ``refuse_foreign``, but look only at attributes of the algorithm itself, not of its modules."""
    with _malformed_is_refused():
        kept = state["attributes"].get("", {})
        _refuse_foreign_attributes(kept, built["attributes"].get("", {}), algorithm, "")


def refuse_other_state(state: dict[str, Any], built: dict[str, Any], name: str) -> None:
    """Raise Refused unless a state dict has the names and types of that of a newly built object."""
    with _malformed_is_refused():
        kept, there = ({KIND: "stateful", "value": encode(given, name, set())} for given in (state, built))
        refuse_unlike(kept, there, name)


@contextmanager
def _malformed_is_refused() -> Iterator[None]:
    try:
        yield
    except Refused:
        raise
    except (*MALFORMED, RuntimeError) as error:
        raise Refused("its state is malformed") from error


def _refuse_foreign_tensors(kept: Mapping[Any, Any], built: Mapping[str, Any], buffers: set[str]) -> None:
    for name in [*kept, *built]:
        if name not in kept or name not in built:
            raise Refused(f"tensor {name!s:.80} is {'missing' if name in built else 'not part of the algorithm'}")
        refuse_unlike(kept[name], built[name], name)
        if name not in buffers and isinstance(built[name], Tensor) and kept[name].shape != built[name].shape:
            raise _unlike(kept[name], built[name], name)


def _refuse_foreign_attributes(kept: Mapping[Any, Any], built: Mapping[str, Any], module: nn.Module, path: str) -> None:
    for name, value in kept.items():
        if name in built:
            refuse_unlike(value, built[name], f"{path}{name}")
            if name == "hparams" and not _has_texts(value, built[name]):  # they contain names of backbones and files
                raise Refused(f"{path}hparams are not those of the run")
        elif isinstance(name, str) and _is_set_later(name, module):
            refuse_unlike(value, _default(name, module), f"{path}{name}")
        else:
            raise Refused(f"{path}{name!s:.80} is not an attribute that {type(module).__name__} sets")


def _is_set_later(name: str, module: nn.Module) -> bool:
    """Return whether methods of a module assign this public attribute, which the instance does not have yet."""
    registered = {*module._parameters, *module._buffers, *module._modules}
    if name.startswith("_") or name in vars(module) or name in registered or _default(name, module) is SKIP:
        return False
    return name in _assigned(type(module))  # type: ignore[arg-type]  # mypy takes classes for unhashable


@lru_cache
def _assigned(kind: type[nn.Module]) -> frozenset[str]:
    """Return the names of all attributes that methods of a class assign, on any object."""
    methods = [part for base in kind.__mro__ for part in vars(base).values() if inspect.isfunction(part)]
    steps = (step for method in methods for step in dis.get_instructions(inspect.unwrap(method)))
    return frozenset(step.argval for step in steps if step.opname == "STORE_ATTR")


def _default(name: str, module: nn.Module) -> Any:
    """Return the encoded class attribute of a module; None if there is none, SKIP for code."""
    try:
        return encode(inspect.getattr_static(type(module), name, None), name, set())
    except TypeError:
        return SKIP


def refuse_unlike(kept: Any, built: Any, name: str) -> None:
    """Raise Refused unless an encoded value has the type of the built one.

    Lengths of containers and of the first dimension of tensors may differ. Numbers, None, and empty or 0-dim tensors
    are placeholders that training may replace.
    """
    if isinstance(built, dict):
        _refuse_unlike_part(kept, built, name)
    elif built is None or (isinstance(built, _NUMBERS) and isinstance(kept, Tensor)):
        _refuse_code(kept, name)
    elif isinstance(built, Tensor):
        if not (_is_dense(kept) and _fits(kept, built)):
            raise _unlike(kept, built, name)
    elif kept is not None and not isinstance(kept, _NUMBERS if isinstance(built, _NUMBERS) else type(built)):
        raise _unlike(kept, built, name)


def _is_dense(value: Any) -> bool:
    return type(value) is Tensor and value.layout is torch.strided and not (value.is_quantized or value.is_meta)


def _fits(kept: Tensor, built: Tensor) -> bool:
    if built.numel() == 0 or built.dim() == 0:
        return True
    return kept.dtype == built.dtype and kept.dim() == built.dim() and kept.shape[1:] == built.shape[1:]


def _refuse_unlike_part(kept: Any, built: dict[str, Any], name: str) -> None:
    """Compare values that are neither tensors nor plain."""
    kind, there = built[KIND], built["value"]
    if not (isinstance(kept, dict) and kept.keys() == built.keys() and kept[KIND] == kind):
        raise _unlike(kept, built, name)
    if kept.get("maxlen") != built.get("maxlen"):
        raise Refused(f"{name} holds at most {kept['maxlen']!r:.20}, not {built['maxlen']}")
    value = kept["value"]
    if kind == "object":
        _refuse_unlike_entries(value, there, name, may_grow=False)
    elif kind == "dict":
        _refuse_unlike_entries(_entries(value), _entries(there), name, may_grow=True)
    elif kind in _SEQUENCES:
        _refuse_unlike_items(value, there, name)
    else:
        refuse_unlike(value, there, name)
        if kind == "stateful" and _keys(there):
            _refuse_new(_keys(value) - _keys(there), name)
        if kind == "numpy" and not 0 <= _position(value) <= _NUMPY_POSITIONS:
            raise Refused(f"{name} is at position {_position(value)!r:.20} of {_NUMPY_POSITIONS}")


def _refuse_unlike_entries(kept: Mapping[Any, Any], built: Mapping[Any, Any], name: str, *, may_grow: bool) -> None:
    if not may_grow:
        _refuse_new(kept.keys() - built.keys(), name)
    for key, value in kept.items():
        if key in built:
            refuse_unlike(value, built[key], f"{name}.{key!s:.80}")
        else:
            _refuse_code(value, name)


def _refuse_new(names: Set[Any], name: str) -> None:
    for new in sorted(map(str, names)):
        raise Refused(f"{name}.{new:.80} is not part of the state")


def _refuse_unlike_items(kept: Any, built: list[Any], name: str) -> None:
    """Compare items pairwise if their number is equal; otherwise, each must match one of the built ones."""
    if len(kept) == len(built):
        for item, there in zip(kept, built, strict=True):
            refuse_unlike(item, there, name)
        return
    for item in kept:
        _refuse_code(item, name)
        if built and not any(_is_like(item, there, name) for there in built):
            raise _unlike(item, built[0], name)


def _is_like(kept: Any, built: Any, name: str) -> bool:
    try:
        refuse_unlike(kept, built, name)
    except Refused:
        return False
    return True


def _refuse_code(kept: Any, name: str) -> None:
    """Raise Refused unless a value is a tensor, plain, or a container of these."""
    if isinstance(kept, PLAIN) or _is_dense(kept):
        return
    kind = kept[KIND] if isinstance(kept, dict) else type(kept).__name__
    if kind == "array" and _is_dense(kept["value"]):
        return
    if kind in _OBJECTS:
        raise Refused(f"{name} is the state of an object that does not exist yet: build it in __init__")
    if kind not in (*_SEQUENCES, "dict"):
        raise Refused(f"{name} is {_kind(kept)}, which is not data")
    for item in kept["value"]:
        for part in item if kind == "dict" else [item]:
            _refuse_code(part, name)


def _entries(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    return {decode(key, None): value for key, value in pairs}


def _keys(encoded: Any) -> Set[Any]:
    """Return the keys of an encoded dict; empty for other values."""
    return _entries(encoded["value"]).keys() if encoded[KIND] == "dict" else set()


def _texts(encoded: Any) -> dict[Any, str]:
    """Return an encoded dict with its strings; other values become ''."""
    return {key: value if isinstance(value, str) else "" for key, value in _entries(encoded["value"]).items()}


def _has_texts(kept: Any, built: Any) -> bool:
    """Return whether an encoded dict has the keys and strings of the built one; earlier versions saved more keys."""
    there, wanted = _texts(kept), _texts(built)
    return {name: text for name, text in there.items() if name in wanted} == wanted


def _position(encoded: Any) -> int:
    return _entries(_entries(encoded["value"])["state"]["value"])["pos"]


def _unlike(kept: Any, built: Any, name: str) -> Refused:
    return Refused(f"{name} is {_kind(kept)}, not {_kind(built)}")


def _kind(encoded: Any) -> str:
    if isinstance(encoded, Tensor):
        return f"a {str(encoded.dtype).removeprefix('torch.')} tensor of shape {tuple(encoded.shape)}"
    return f"a {encoded[KIND] if isinstance(encoded, dict) and KIND in encoded else type(encoded).__name__!s:.40}"
