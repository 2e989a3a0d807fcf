"""Checkpoints: capture and restore the complete state of any algorithm, without code per algorithm."""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from math import inf
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dg_batchformer.errors import MALFORMED
from dg_batchformer.networks.tensor_files import Broken, read_tensors
from dg_batchformer.storage.folders import atomic_write
from dg_batchformer.training.encoding import SKIP, decode, encode
from dg_batchformer.training.trust import Refused, refuse_foreign, refuse_foreign_attributes, refuse_other_state

_MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))
_FORMAT = "dg_batchformer checkpoint 1"
_MOST_THREADS = 4096
_SAVED = {
    "step": int,
    "dataset_fingerprint": str,
    "keep": str,
    "execution": dict,
    "records_bytes": int,
    "threads": int,
    "means": dict,
    "best_validation": float,
    "seconds": float,
    "algorithm": dict,
}
_SAVED_LATER = {"seconds_alone": float, "arrangement": str, "weight_files": dict}  # not in earlier checkpoints


class Unreadable(Exception):
    """A file that is not a complete checkpoint of this version."""


def capture(algorithm: nn.Module) -> dict[str, Any]:
    """Return the state of an algorithm as tensors and plain types, which load with ``weights_only``.

    Includes parameters, buffers, and other attributes of every module: numbers, strings, tensors, random generators,
    objects with ``state_dict`` and ``load_state_dict`` (optimizers), lists, tuples, dicts, sets and deques of these,
    and objects with such attributes. Functions and classes are skipped, and so are other attributes of modules with
    ``state_is_weights``. Raises TypeError, with the name of the attribute, for anything else.
    """
    registered = _registered(algorithm)
    attributes: dict[str, dict[str, Any]] = {}
    for path, name, value in _attributes(algorithm):
        kept = encode(value, path, registered)
        if kept is not SKIP:
            attributes.setdefault(path.rpartition(".")[0], {})[name] = kept
    return {"modules": algorithm.state_dict(), "attributes": attributes}


def tensor_bytes(state: Any) -> int:
    """Return the size of all tensors in a captured state, in bytes."""
    if isinstance(state, torch.Tensor):
        return state.nbytes
    if isinstance(state, dict):
        return sum(tensor_bytes(part) for part in state.values())
    return sum(tensor_bytes(part) for part in state) if isinstance(state, list) else 0


def restore(algorithm: nn.Module, state: Any) -> None:
    """Load a captured state into a newly built algorithm of the same class; raise Refused for any other state."""
    refuse_foreign(algorithm, state, capture(algorithm))
    with _misfit_is_refused():
        _put(algorithm, state)


def restore_attributes(algorithm: nn.Module, state: Any) -> None:
    """Load only the algorithm's own attributes from a captured state, not the modules in it; raise as ``restore``."""
    refuse_foreign_attributes(algorithm, state, capture(algorithm))
    with _misfit_is_refused():
        _put_attributes(algorithm, state["attributes"].get("", {}))


@contextmanager
def unchanged(algorithm: nn.Module) -> Iterator[None]:
    """Restore the present state of an algorithm after the context."""
    state = copy.deepcopy(capture(algorithm))
    try:
        yield
    finally:
        _put(algorithm, state)


@contextmanager
def _misfit_is_refused() -> Iterator[None]:
    try:
        yield
    except (*MALFORMED, RuntimeError) as error:
        raise Refused(f"the algorithm does not accept it ({' '.join(str(error).split()):.200})") from error


def _put(algorithm: nn.Module, state: dict[str, Any]) -> None:
    modules = dict(algorithm.named_modules())
    for path, buffer in algorithm.named_buffers():
        kept = state["modules"].get(path, buffer)
        if kept.shape != buffer.shape:  # the algorithm infers it from the first batch
            module, _, name = path.rpartition(".")
            setattr(modules[module], name, torch.empty_like(kept))
    algorithm.load_state_dict(state["modules"])
    for path, attributes in state["attributes"].items():
        _put_attributes(modules[path], attributes)


def _put_attributes(module: nn.Module, attributes: dict[str, Any]) -> None:
    for name, kept in attributes.items():
        restored = decode(kept, vars(module).get(name))
        if restored is not SKIP:
            setattr(module, name, restored)


def refuse_unsaved(state: Any, means: dict[str, Any], steps: int) -> None:
    """Raise Refused unless the entries of a checkpoint, besides the algorithm's state, are valid.

    Args:
        state: of the checkpoint.
        means: state of the metrics of a new run.
        steps: of the run.

    """
    saved = state if isinstance(state, dict) else {}
    strange = [name for name, kind in _SAVED.items() if type(saved.get(name)) is not kind]
    strange += [name for name, kind in _SAVED_LATER.items() if type(saved.get(name, kind())) is not kind]
    if strange:
        raise Refused(f"its {strange[0]} is missing, or of another type")
    for name, low, high in (("step", 0, steps), ("records_bytes", 0, inf), ("threads", 1, _MOST_THREADS)):
        if not low <= state[name] <= high:
            raise Refused(f"its {name} is {state[name]}, but must be in {low} to {high}")
    refuse_other_state(state["means"], means, "means")


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically."""
    with atomic_write(path) as file:
        torch.save({"format": _FORMAT, "state": state}, file)


def load(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a checkpoint written by ``save``; raise Unreadable if the file is torn or not a checkpoint."""
    try:
        content = read_tensors(path, device)
    except Broken as error:
        raise Unreadable(f"{path} cannot be read ({error!s:.200})") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise Unreadable(f"{path} is not a checkpoint of this version")
    return content["state"]


def _registered(algorithm: nn.Module) -> set[int]:
    return {id(part) for part in chain(algorithm.modules(), algorithm.parameters(), algorithm.buffers())}


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
