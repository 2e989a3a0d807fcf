"""Read a sweep file: every key to its field of SweepSpec."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import MISSING, fields
from functools import partial
from pathlib import Path
from typing import Any

from dg_batchformer.catalog.custom import find_dataset
from dg_batchformer.catalog.datasets import SELECTION_NAMES
from dg_batchformer.errors import InputError, unknown
from dg_batchformer.hparams import plain_number, same_spelling
from dg_batchformer.spec.expected import parse_expected
from dg_batchformer.spec.imbalance import parse_imbalance
from dg_batchformer.spec.names import module_names, split_name
from dg_batchformer.spec.protocols import get_protocol
from dg_batchformer.spec.race import Race
from dg_batchformer.spec.run import CHOICES, TOO_LARGE
from dg_batchformer.spec.search import Search, further_trials
from dg_batchformer.spec.sweep import MOST_RUNS, Row, SweepSpec
from dg_batchformer.spec.sweep_checks import check_keys, named
from dg_batchformer.spec.yaml_lines import Key, LinedYaml
from dg_batchformer.text.spelling import one_form

_NOT_KEYS = ("name", "environments", "question")


def load_sweep(path: Path, data_dir: Path | None = None) -> SweepSpec:
    """Read a sweep file; raise InputError, with file, line and key, for invalid content.

    Args:
        path: of the file.
        data_dir: folder with custom datasets.

    """
    yaml = LinedYaml(path)
    if not isinstance(yaml.data, dict):
        raise yaml.error((), "a sweep file must be a mapping with keys such as 'datasets:' and 'algorithms:'")
    known = {item.name: item for item in fields(SweepSpec) if item.name not in _NOT_KEYS}
    for key in yaml.data:
        if key not in known:
            raise yaml.error((key,), str(unknown("key", key, known)))
    for key, item in known.items():
        if item.default is MISSING and item.default_factory is MISSING and key not in yaml.data:
            raise yaml.error((), f"key '{key}' is missing")
    values = {key: _READERS[key](yaml, (key,), value) for key, value in yaml.data.items()}
    values |= _find_datasets(yaml, values["datasets"], data_dir)
    spec = SweepSpec(name=path.stem, question=yaml.comment, **values)
    check_keys(yaml, spec)
    if "expected" in yaml.data:
        labels = [row.label for row in spec.algorithms]
        parse_expected(spec.expected, spec.datasets, labels, lambda key, text: yaml.error(("expected", *key), text))
    return spec


def declared_plugins(path: Path) -> tuple[str, ...]:
    """Return the plug-ins that a sweep file names; () if they are malformed, which ``load_sweep`` reports."""
    yaml = LinedYaml(path)
    given = yaml.data.get("plugins", []) if isinstance(yaml.data, dict) else []
    with suppress(InputError):
        return _plugins(yaml, ("plugins",), given) if given else ()
    return ()


def _find_datasets(yaml: LinedYaml, datasets: Sequence[str], data_dir: Path | None) -> dict[str, Any]:
    """Return the datasets, with custom ones spelled as on disk, and the environments of custom ones."""
    look = partial(find_dataset, data_dir=data_dir)
    found = [named(yaml, ("datasets", index), look, name) for index, name in enumerate(datasets)]
    names = _distinct(yaml, ("datasets",), [name for name, _ in found])
    return {"datasets": names, "environments": {name: environments for name, environments in found if environments}}


def _items(yaml: LinedYaml, key: Key, value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise yaml.error(key, f"{key[0]} must be a list of at least one item, got {value!r}")
    return value


def _datasets(yaml: LinedYaml, key: Key, value: Any) -> tuple[str, ...]:
    return tuple(_texts(yaml, key, value))


def _texts(yaml: LinedYaml, key: Key, value: Any) -> list[str]:
    return [_text(yaml, (*key, index), item) for index, item in enumerate(_items(yaml, key, value))]


def _text(yaml: LinedYaml, key: Key, value: Any) -> str:
    """Return a name as written, even if YAML would parse it as a number, boolean or date."""
    text = yaml.text(key)
    if not text:
        raise yaml.error(key, f"{key[0]} must be a name, got {value!r}")
    return text


def _distinct(yaml: LinedYaml, key: Key, items: list[str]) -> tuple[str, ...]:
    for index, item in enumerate(items):
        if one_form(item) in map(one_form, items[:index]):
            raise yaml.error((*key, index), f"{key[0]}: {item!r} is given twice")
    return tuple(items)


def _rows(yaml: LinedYaml, key: Key, value: Any) -> tuple[Row, ...]:
    rows = [_row(yaml, (*key, index), item) for index, item in enumerate(_items(yaml, key, value))]
    _distinct(yaml, key, [row.label for row in rows])
    return tuple(rows)


_KEYS_OF_ROW = ("name", "label", "hparams", "grid")


def _row(yaml: LinedYaml, key: Key, item: Any) -> Row:
    name_key: Key = (*key, "name")
    if yaml.text(key):
        item, name_key = {"name": item}, key
    if not isinstance(item, dict) or "name" not in item:
        raise yaml.error(key, f"a row is a name or {{name: ..., label: ..., hparams: ..., grid: ...}}, got {item!r}")
    for given in item:
        if given not in _KEYS_OF_ROW:
            raise yaml.error((*key, given), str(unknown("key of a row", given, _KEYS_OF_ROW)))
    name = _text(yaml, name_key, item["name"])
    named(yaml, key, split_name, name)
    hparams = _hparams(yaml, (*key, "hparams"), item.get("hparams", {}))
    if hparams and "label" not in item:
        raise yaml.error(key, f"a row with hparams needs a label, to distinguish it from plain {name}")
    label = one_form(_text(yaml, (*key, "label"), item["label"]) if "label" in item else name)
    if not label.isprintable() or not label.strip():
        raise yaml.error((*key, "label"), f"a label must be one printable line, got {label!r}")
    grid = _grid(yaml, (*key, "grid"), item.get("grid", {}))
    return Row(label, name, hparams, yaml.lines[key], grid)


def _hparams(yaml: LinedYaml, key: Key, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise yaml.error(key, f"hparams must be a mapping from names to values, got {value!r}")
    for name, given in value.items():
        if not isinstance(given, bool | int | float | str):
            raise yaml.error((*key, name), f"hparam {name} must be a single value, got {given!r}")
    return {name: plain_number(given) for name, given in value.items()}


def _grid(yaml: LinedYaml, key: Key, value: Any) -> dict[str, tuple[Any, ...]]:
    """Parse a grid: a list of values by hparam."""
    if not isinstance(value, dict):
        raise yaml.error(key, f"grid must map names to lists of values, such as {{lr: [1e-5, 3e-5]}}, got {value!r}")
    return {name: _values(yaml, (*key, name), values) for name, values in value.items()}


def _values(yaml: LinedYaml, key: Key, values: Any) -> tuple[Any, ...]:
    """Parse the values of a hparam in a grid."""
    name = key[-1]
    if not isinstance(values, list) or not values:
        raise yaml.error(key, f"grid: {name} must be a list of at least one value, got {values!r}")
    for index, given in enumerate(values):
        if not isinstance(given, bool | int | float | str):
            raise yaml.error((*key, index), f"grid: an item of {name} must be a single value, got {given!r}")
        if repr(same_spelling(given)) in {repr(same_spelling(other)) for other in values[:index]}:
            raise yaml.error((*key, index), f"grid: {name} lists {given!r} twice")
    return tuple(plain_number(given) for given in values)


def _environments(yaml: LinedYaml, key: Key, value: Any) -> tuple[str, ...] | None:
    return None if value == "all" else _distinct(yaml, key, _texts(yaml, key, value))


def _training_sets(yaml: LinedYaml, key: Key, value: Any) -> tuple[tuple[str, ...], ...] | str:
    """Parse ``train_envs``: each item is an environment, or a list of environments to train on together."""
    if value == "all":
        return "all"
    training_sets = []
    for index, item in enumerate(_items(yaml, key, value)):
        if item == []:
            raise yaml.error((*key, index), f"an item of {key[0]} must be an environment or a non-empty list, got []")
        place = (*key, index)
        together = _texts(yaml, place, item) if isinstance(item, list) else [_text(yaml, place, item)]
        training_sets.append(_distinct(yaml, place, together))
    return tuple(training_sets)


def _imbalance(yaml: LinedYaml, key: Key, value: Any) -> tuple[str, ...]:
    """Read one imbalance, or a list of them, each of which has runs of its own."""
    texts = _texts(yaml, key, value) if isinstance(value, list) else [_text(yaml, key, value)]
    return _distinct(yaml, key, [str(named(yaml, key, parse_imbalance, text)) for text in texts])


def _count(yaml: LinedYaml, key: Key, value: Any, least: int = 1) -> int:
    number = same_spelling(value)
    name = ": ".join(part for part in key if isinstance(part, str))
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise yaml.error(key, f"{name} must be a whole number, at least {least}, got {value!r}")
    if number >= TOO_LARGE:
        raise yaml.error(key, f"{name} must be below 2^63, got {number}")
    return number


def _trials(yaml: LinedYaml, key: Key, value: Any) -> int | tuple[int, ...]:
    """Parse ``trials``: a number of trials, or a list of seeds."""
    return _seeds(yaml, key, value) if isinstance(value, list) else _count(yaml, key, value)


def _seeds(yaml: LinedYaml, key: Key, value: Any) -> tuple[int, ...]:
    """Parse a list of trial seeds."""
    seeds = tuple(_count(yaml, (*key, index), seed, least=0) for index, seed in enumerate(_items(yaml, key, value)))
    for index, seed in enumerate(seeds):
        if seed in seeds[:index]:
            raise yaml.error((*key, index), f"{key[0]}: {seed} is given twice")
    return seeds


def _search(yaml: LinedYaml, key: Key, value: Any) -> Search:
    if not isinstance(value, dict) or not {"on", "repeat"} <= value.keys():
        raise yaml.error(key, f"search needs on and repeat, as in {{draws: 20, on: [0], repeat: 3}}; got {value!r}")
    for given in value:
        if given not in _KEYS_OF_SEARCH:
            raise yaml.error((*key, given), str(unknown("key of search", given, _KEYS_OF_SEARCH)))
    on = _seeds(yaml, (*key, "on"), value["on"])
    repeat = value["repeat"]
    if isinstance(repeat, list):
        trials = _seeds(yaml, (*key, "repeat"), repeat)
    else:
        number = _count(yaml, (*key, "repeat"), repeat)
        if number > MOST_RUNS:
            raise yaml.error(
                (*key, "repeat"), f"search: repeat is {number:,}, but a sweep may have at most {MOST_RUNS:,} runs"
            )
        trials = further_trials(on, number)
    if both := [seed for seed in trials if seed in on]:
        raise yaml.error(
            (*key, "repeat"), f"search: repeat has trial {both[0]}, which the search is on; give further trials"
        )
    draws = _count(yaml, (*key, "draws"), value.get("draws", 1))
    selection = value.get("selection", "training-domain")
    if draws > 1 and len(on) > 1:
        raise yaml.error(
            (*key, "on"),
            f"search: draws differ between trials, so averaging over {len(on)} trials is meaningless; search on one "
            "trial, or list values in a grid",
        )
    allowed = [name for name in SELECTION_NAMES if name not in _NOT_FOR_SEARCHES]
    if selection not in allowed:
        raise yaml.error((*key, "selection"), str(unknown("selection of search:", selection, allowed)))
    return Search(on, trials, draws, selection)


_KEYS_OF_SEARCH = ("draws", "on", "repeat", "selection")
# These need two environments held out, averaged weights, and several learning rates.
_NOT_FOR_SEARCHES = ("leave-one-domain-out", "swad-averaged", "auto-lr")


def _race(yaml: LinedYaml, key: Key, value: Any) -> Race:
    if not isinstance(value, dict) or "rungs" not in value:
        raise yaml.error(key, f"race needs rungs, as in {{rungs: [300, 900], keep: 0.5}}; got {value!r}")
    for given in value:
        if given not in _KEYS_OF_RACE:
            raise yaml.error((*key, given), str(unknown("key of race", given, _KEYS_OF_RACE)))
    rungs_key = (*key, "rungs")
    rungs = [
        _count(yaml, (*rungs_key, index), rung) for index, rung in enumerate(_items(yaml, rungs_key, value["rungs"]))
    ]
    if rungs != sorted(set(rungs)):
        raise yaml.error(rungs_key, f"race: rungs must be steps in ascending order, got {rungs}")
    return Race(tuple(rungs), _fraction(yaml, (*key, "keep"), value.get("keep", Race.keep)))


_KEYS_OF_RACE = ("rungs", "keep")


def _plugins(yaml: LinedYaml, key: Key, value: Any) -> tuple[str, ...]:
    names = _texts(yaml, key, value)
    plugins = [name for index, text in enumerate(names) for name in named(yaml, (*key, index), module_names, [text])]
    return _distinct(yaml, key, plugins)


def _switch(yaml: LinedYaml, key: Key, value: Any) -> bool:
    if not isinstance(value, bool):
        raise yaml.error(key, f"{key[0]} must be true or false, got {value!r}")
    return value


def _fraction(yaml: LinedYaml, key: Key, value: Any) -> float:
    number = plain_number(value)
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < 1:
        name = ": ".join(map(str, key))
        raise yaml.error(key, f"{name} must be a number between 0 and 1, got {value!r}")
    return float(number)


def _choice(yaml: LinedYaml, key: Key, value: Any) -> str:
    allowed = CHOICES[str(key[0])]
    if isinstance(value, bool) and "on" in allowed:
        value = "on" if value else "off"  # YAML parses on and off as booleans
    if value not in allowed:
        raise yaml.error(key, str(unknown(f"value of {key[0]}:", value, allowed)))
    return value


def _protocol(yaml: LinedYaml, key: Key, value: Any) -> str:
    return named(yaml, key, get_protocol, _text(yaml, key, value)).name


_READERS: dict[str, Callable[[LinedYaml, Key, Any], Any]] = {
    "datasets": _datasets,
    "algorithms": _rows,
    "protocol": _protocol,
    "trials": _trials,
    "draws": _count,
    "grid": _grid,
    "search": _search,
    "hparams_from": lambda yaml, key, value: _text(yaml, key, value),
    "race": _race,
    "test_envs": _environments,
    "train_envs": _training_sets,
    "imbalance": _imbalance,
    "pairs": _switch,
    "share": _switch,
    "hparams": _hparams,
    "steps": _count,
    "checkpoint_freq": _count,
    "holdout_fraction": _fraction,
    **dict.fromkeys(CHOICES, _choice),
    "plugins": _plugins,
    "expected": lambda yaml, key, value: value,  # checked when datasets and rows are known
}
