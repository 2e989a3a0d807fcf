"""Encode Python values as tensors and plain types, which load with ``weights_only``, and decode them."""

import inspect
import random
from collections import deque
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

PLAIN = (bool, int, float, str, type(None))
KIND = "__kind__"  # marks the encoding of other values: {KIND: ..., "value": ...}
SKIP = object()  # code, or saved elsewhere
_MODULE_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)
CONTAINERS = ("list", "tuple", "set", "deque", "dict")


def encode(value: Any, path: str, registered: set[int]) -> Any:
    """Encode a value, or return SKIP for code; raise TypeError, with the path, if it cannot be encoded.

    Args:
        value: any value.
        path: of the attribute, for messages.
        registered: ids of the algorithm's modules, parameters and buffers, which are saved as such.

    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, Tensor):
        return SKIP if id(value) in registered else value.detach()
    if isinstance(value, np.ndarray):
        return {KIND: "array", "value": torch.from_numpy(value.copy())}
    if isinstance(value, torch.Generator):
        return {KIND: "generator", "value": value.get_state()}
    if isinstance(value, random.Random):
        return {KIND: "random", "value": encode(value.getstate(), path, registered)}
    if isinstance(value, np.random.RandomState):
        return {KIND: "numpy", "value": encode(value.get_state(legacy=False), path, registered)}
    if isinstance(value, dict) or type(value) in (list, tuple, set, deque, torch.Size):
        return _encode_container(value, path, registered)
    if _is_code(value) or (isinstance(value, nn.Module) and _is_registered(value, registered)):
        return SKIP
    if hasattr(value, "state_dict") and hasattr(value, "load_state_dict") and not isinstance(value, nn.Module):
        return {KIND: "stateful", "value": encode(value.state_dict(), path, registered)}
    if hasattr(value, "__dict__") and not isinstance(value, nn.Module):
        parts = {name: encode(part, f"{path}.{name}", registered) for name, part in vars(value).items()}
        return {KIND: "object", "value": {name: kept for name, kept in parts.items() if kept is not SKIP}}
    raise _cannot_keep(value, path)


def _is_code(value: Any) -> bool:
    code = inspect.isclass(value) or inspect.isroutine(value) or inspect.ismodule(value)
    return code or isinstance(value, torch.device | torch.dtype)


def _is_registered(module: nn.Module, registered: set[int]) -> bool:
    """Return whether all of a module that is kept in a container belongs to the algorithm already.

    Containers of modules may be new, as they have no state.
    """
    return all(id(part) in registered or isinstance(part, _MODULE_CONTAINERS) for part in module.modules())


def _encode_container(value: Any, path: str, registered: set[int]) -> Any:
    items = [list(pair) for pair in value.items()] if isinstance(value, dict) else [[item] for item in value]
    kept = [[encode(part, path, registered) for part in item] for item in items]
    skipped = [part is SKIP for item in kept for part in item[-1:]]
    if skipped and all(skipped):
        return SKIP
    if any(skipped):
        raise _cannot_keep(value, path)
    if isinstance(value, dict):
        return {KIND: "dict", "value": kept}
    kind = "tuple" if isinstance(value, tuple) else type(value).__name__
    limit = value.maxlen if isinstance(value, deque) else None
    return {KIND: kind, "value": [item for [item] in kept], "maxlen": limit}


def _cannot_keep(value: Any, path: str) -> TypeError:
    return TypeError(
        f"attribute {path.lstrip('.')} is a {type(value).__name__}, which a checkpoint cannot save; make it a module, "
        "tensor, number or container of these, or give it state_dict and load_state_dict"
    )


def decode(kept: Any, live: Any) -> Any:
    """Decode a value; load the state of a stateful object into ``live`` instead, and return SKIP."""
    if not isinstance(kept, dict):
        return kept
    kind, value = kept[KIND], kept["value"]
    if kind == "array":
        return value.cpu().numpy()
    if kind in ("generator", "random", "numpy", "stateful", "object"):
        _load_into(live, kind, value)
        return SKIP
    if kind == "dict":
        there = live if isinstance(live, dict) else {}
        restored = {}
        for kept_key, item in value:
            key = decode(kept_key, None)
            part = decode(item, there.get(key))
            restored[key] = there[key] if part is SKIP else part
        if live is not there:
            return restored
        live.clear()
        live.update(restored)
        return SKIP
    parts = live if isinstance(live, list | tuple) and len(live) == len(value) else [None] * len(value)
    items = [decode(item, part) for item, part in zip(value, parts, strict=True)]
    items = [part if item is SKIP else item for item, part in zip(items, parts, strict=True)]
    if kind == "deque":
        return deque(items, maxlen=kept["maxlen"])
    return {"list": list, "tuple": tuple, "set": set}[kind](items)


def _load_into(live: Any, kind: str, value: Any) -> None:
    if kind == "generator":
        live.set_state(value.cpu())
    elif kind == "random":
        version, internal, gauss = decode(value, None)
        live.setstate((version, tuple(internal), gauss))
    elif kind == "numpy":
        live.set_state(decode(value, None))
    elif kind == "object":
        for name, kept in value.items():
            part = decode(kept, vars(live).get(name))
            if part is not SKIP:
                setattr(live, name, part)
    else:
        live.load_state_dict(decode(value, None))
