"""Checkpoints: everything of an algorithm that changes during training, with no code per algorithm."""

import inspect
import random
from collections import deque
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dg_batchformer.networks.tensor_files import Broken, read_tensors
from dg_batchformer.store import atomic_write

_PLAIN = (bool, int, float, str, type(None))
_MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))
_SKIP = object()  # what is code or already kept elsewhere
_KIND = "__kind__"
_FORMAT = "dg_batchformer checkpoint 1"


class Unreadable(Exception):
    """A file that is no whole checkpoint of this version."""


def capture(algorithm: nn.Module) -> dict[str, Any]:
    """Return the state of an algorithm as tensors and plain types, safe to load with ``weights_only``.

    Parameters and buffers, and of every module the other attributes: numbers, texts, tensors, generators,
    everything with ``state_dict`` and ``load_state_dict`` (optimizers), lists, tuples, dicts, sets and deques of
    these, and objects whose attributes are these. Functions and classes are code, not state; a module whose
    ``state_is_weights`` has no other attributes that change. Raises TypeError, naming the attribute, for anything
    else.
    """
    registered = _registered(algorithm)
    attributes: dict[str, dict[str, Any]] = {}
    for path, name, value in _attributes(algorithm):
        kept = _encode(value, path, registered)
        if kept is not _SKIP:
            attributes.setdefault(path.rpartition(".")[0], {})[name] = kept
    return {"modules": algorithm.state_dict(), "attributes": attributes}


def restore(algorithm: nn.Module, state: dict[str, Any]) -> None:
    """Put a captured state into a freshly built algorithm of the same kind."""
    modules = dict(algorithm.named_modules())
    for path, buffer in algorithm.named_buffers():
        kept = state["modules"].get(path, buffer)
        if kept.shape != buffer.shape:  # of an algorithm that learns its size from the first batch
            module, _, name = path.rpartition(".")
            setattr(modules[module], name, torch.empty_like(kept))
    algorithm.load_state_dict(state["modules"])
    for path, kept in state["attributes"].items():
        for name, value in kept.items():
            module = modules[path]
            restored = _decode(value, getattr(module, name, None), f"{path}.{name}")
            if restored is not _SKIP:
                setattr(module, name, restored)


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all."""
    with atomic_write(path) as file:
        torch.save({"format": _FORMAT, "state": state}, file)


def load(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a checkpoint written by ``save``; raise Unreadable for a torn or foreign file."""
    try:
        content = read_tensors(path, device)
    except Broken as error:
        raise Unreadable(f"{path} cannot be read ({error!s:.200})") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise Unreadable(f"{path} is no checkpoint of this version")
    return content["state"]


def _registered(algorithm: nn.Module) -> set[int]:
    return {id(tensor) for tensor in chain(algorithm.parameters(), algorithm.buffers())}


def _attributes(algorithm: nn.Module) -> Iterable[tuple[str, str, Any]]:
    fixed = {
        id(part)
        for module in algorithm.modules()
        if getattr(module, "state_is_weights", False)
        for part in module.modules()
    }
    for module_path, module in algorithm.named_modules():
        for name, value in vars(module).items():
            if name not in _MODULE_ATTRIBUTES and id(module) not in fixed:
                yield f"{module_path}.{name}", name, value


def _encode(value: Any, path: str, registered: set[int]) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Tensor):
        return _SKIP if id(value) in registered else value.detach()
    if isinstance(value, np.ndarray):
        return {_KIND: "array", "value": torch.from_numpy(value.copy())}
    if isinstance(value, torch.Generator):
        return {_KIND: "generator", "value": value.get_state()}
    if isinstance(value, random.Random):
        return {_KIND: "random", "value": _encode(value.getstate(), path, registered)}
    if isinstance(value, np.random.RandomState):
        return {_KIND: "numpy", "value": _encode(value.get_state(legacy=False), path, registered)}
    if isinstance(value, dict) or type(value) in (list, tuple, set, deque, torch.Size):
        return _encode_container(value, path, registered)
    if inspect.isclass(value) or inspect.isroutine(value) or isinstance(value, torch.device | torch.dtype):
        return _SKIP
    if hasattr(value, "state_dict") and hasattr(value, "load_state_dict") and not isinstance(value, nn.Module):
        return {_KIND: "stateful", "value": _encode(value.state_dict(), path, registered)}
    if hasattr(value, "__dict__") and not isinstance(value, nn.Module):
        parts = {name: _encode(part, f"{path}.{name}", registered) for name, part in vars(value).items()}
        return {_KIND: "object", "value": {name: kept for name, kept in parts.items() if kept is not _SKIP}}
    raise _cannot_keep(value, path)


def _encode_container(value: Any, path: str, registered: set[int]) -> Any:
    items = [list(pair) for pair in value.items()] if isinstance(value, dict) else [[item] for item in value]
    kept = [[_encode(part, path, registered) for part in item] for item in items]
    skipped = [part is _SKIP for item in kept for part in item[-1:]]
    if skipped and all(skipped):
        return _SKIP
    if any(skipped):
        raise _cannot_keep(value, path)
    if isinstance(value, dict):
        return {_KIND: "dict", "value": kept}
    kind = "tuple" if isinstance(value, tuple) else type(value).__name__
    limit = value.maxlen if isinstance(value, deque) else None
    return {_KIND: kind, "value": [item for [item] in kept], "maxlen": limit}


def _cannot_keep(value: Any, path: str) -> TypeError:
    return TypeError(
        f"attribute {path.lstrip('.')} is a {type(value).__name__} that a checkpoint cannot keep; hold it as a module, "
        "tensor, number, container of these, or give it state_dict and load_state_dict"
    )


def _decode(kept: Any, live: Any, path: str) -> Any:
    if not isinstance(kept, dict):
        return kept
    kind, value = kept[_KIND], kept["value"]
    if kind == "array":
        return value.cpu().numpy()
    if kind in ("generator", "random", "numpy", "stateful", "object"):
        if live is None:
            raise TypeError(f"attribute {path.lstrip('.')} is restored before it is built: build it in __init__")
        _load_into(live, kind, value, path)
        return _SKIP
    if kind == "dict":
        there = live if isinstance(live, dict) else {}
        restored = {}
        for kept_key, item in value:
            key = _decode(kept_key, None, path)
            part = _decode(item, there.get(key), path)
            restored[key] = there[key] if part is _SKIP else part
        if live is not there:
            return restored
        live.clear()
        live.update(restored)
        return _SKIP
    parts = live if isinstance(live, list | tuple) and len(live) == len(value) else [None] * len(value)
    items = [_decode(item, part, path) for item, part in zip(value, parts, strict=True)]
    items = [part if item is _SKIP else item for item, part in zip(items, parts, strict=True)]
    if kind == "deque":
        return deque(items, maxlen=kept["maxlen"])
    return {"list": list, "tuple": tuple, "set": set}[kind](items)


def _load_into(live: Any, kind: str, value: Any, path: str) -> None:
    if kind == "generator":
        live.set_state(value.cpu())
    elif kind == "random":
        version, internal, gauss = _decode(value, None, path)
        live.setstate((version, tuple(internal), gauss))
    elif kind == "numpy":
        live.set_state(_decode(value, None, path))
    elif kind == "object":
        for name, kept in value.items():
            part = _decode(kept, getattr(live, name, None), f"{path}.{name}")
            if part is not _SKIP:
                setattr(live, name, part)
    else:
        live.load_state_dict(_decode(value, None, path))
