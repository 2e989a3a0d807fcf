"""Protocols of other people, as YAML files.

The keys are fields of ``Protocol``; draws are written as ``{lr: {log_uniform: [1e-5, 1e-3]}}``.
"""

from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from math import inf, log10
from pathlib import Path
from typing import Any

from dg_batchformer.catalog.datasets import DATASETS
from dg_batchformer.errors import InputError, unknown
from dg_batchformer.hparams import Value, plain_number
from dg_batchformer.spec.protocol import Draw, Protocol
from dg_batchformer.spec.yaml_lines import Key, LinedYaml


def read_protocol(name: str, file: Path) -> Protocol:
    """Read a protocol; raise InputError, with file, line and key, for invalid content."""
    yaml = LinedYaml(file)
    if not isinstance(yaml.data, dict) or not {"about", "source"} <= yaml.data.keys():
        raise yaml.error((), "a protocol is a mapping with the keys about and source, and what it fixes")
    for key in yaml.data:
        if key not in _READERS:
            raise yaml.error((key,), str(unknown("key of a protocol", key, _READERS)))
    return Protocol(name, **{key: _READERS[key](yaml, (key,), value) for key, value in yaml.data.items()})


def file_in_package(entry: EntryPoint) -> Path:
    """Return the file of an entry point such as ``my_package:my_protocol.yaml``, without importing the package."""
    package, _, file = entry.value.partition(":")
    found = None if "." in package else find_spec(package)
    if found is None or not found.submodule_search_locations or not file:
        raise InputError(
            f"protocol {entry.name} of an installed package: {entry.value} is not a file in a top-level package, "
            "such as my_package:my_protocol.yaml"
        )
    return Path(found.submodule_search_locations[0]) / file


def _text(yaml: LinedYaml, key: Key, value: Any) -> str:
    text = yaml.text(key)
    if not text or not text.isprintable():
        raise yaml.error(key, f"{key[-1]} must be one line of text, got {value!r:.100}")
    return text


def _count(yaml: LinedYaml, key: Key, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise yaml.error(key, f"{key[-1]} must be a whole number, at least 1, got {value!r:.100}")
    return value


def _counts(yaml: LinedYaml, key: Key, value: Any) -> dict[str, int]:
    """Read counts by dataset."""
    counts = _mapping(yaml, key, value)
    for name in counts:
        if name not in DATASETS:
            raise yaml.error((*key, name), f"{key[0]}: {unknown('dataset', name, DATASETS)}")
    return {name: _count(yaml, (*key, name), count) for name, count in counts.items()}


def _hparams(yaml: LinedYaml, key: Key, value: Any) -> dict[str, Value]:
    return {name: _value(yaml, (*key, name), given) for name, given in _mapping(yaml, key, value).items()}


def _value(yaml: LinedYaml, key: Key, value: Any) -> Any:
    if not isinstance(value, bool | int | float | str):
        raise yaml.error(key, f"{key[0]}: {key[1]} must be a single value, got {value!r:.100}")
    return plain_number(value)


def _draws(yaml: LinedYaml, key: Key, value: Any) -> dict[str, Draw]:
    return {name: _draw(yaml, (*key, name), given) for name, given in _mapping(yaml, key, value).items()}


def _draw(yaml: LinedYaml, key: Key, value: Any) -> Draw:
    """Read the random draw of a hparam: ``{KIND: [...]}``."""
    kinds = ", ".join(_DRAWS)
    if not isinstance(value, dict) or len(value) != 1 or not set(value) <= set(_DRAWS):
        raise yaml.error(key, f"draws: {key[-1]} must be one of {{{kinds}: [...]}}, got {value!r:.100}")
    [(kind, given)] = value.items()
    items = given if isinstance(given, list) else []
    values = [_value(yaml, (*key, kind, index), item) for index, item in enumerate(items)]
    if kind == "choice":
        if not values:
            raise yaml.error(key, f"draws: choice of {key[-1]} takes at least one value, got {given!r:.100}")
        return _choice(values)
    if not _is_range(values) or (kind == "log_uniform" and values[0] <= 0):
        raise yaml.error(key, f"draws: {kind} of {key[-1]} takes two increasing numbers, got {given!r:.100}")
    return _uniform(*values) if kind == "uniform" else _log_uniform(*values)


def _is_range(values: Sequence[Any]) -> bool:
    """Return whether values are two increasing, finite numbers."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return len(values) == len(numbers) == 2 and -inf < numbers[0] < numbers[1] < inf


def _choice(values: Sequence[Any]) -> Draw:
    return lambda rng: values[rng.randint(len(values))]


def _uniform(low: float, high: float) -> Draw:
    return lambda rng: rng.uniform(low, high)


def _log_uniform(low: float, high: float) -> Draw:
    return lambda rng: 10 ** rng.uniform(log10(low), log10(high))


_DRAWS = ("choice", "uniform", "log_uniform")


def _mapping(yaml: LinedYaml, key: Key, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise yaml.error(key, f"{key[0]} must be a mapping, got {value!r:.100}")
    return value


_READERS: dict[str, Callable[[LinedYaml, Key, Any], Any]] = {
    "about": _text,
    "source": _text,
    "steps": _count,
    "checkpoint_freq": _count,
    "steps_for": _counts,
    "checkpoint_freq_for": _counts,
    "defaults": _hparams,
    "photographs": _hparams,
    "draws": _draws,
}
