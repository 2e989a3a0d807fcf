"""SweepSpec: a declared set of runs, read from a YAML file of ``sweeps/``."""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from dg_batchformer.catalog import dataset_facts
from dg_batchformer.errors import InputError, unknown
from dg_batchformer.expected import parse_expected
from dg_batchformer.hparams import plain_number, same_spelling
from dg_batchformer.names import module_names, split_name
from dg_batchformer.protocols import DEFAULT_PROTOCOL, get_protocol
from dg_batchformer.spec import CHOICES
from dg_batchformer.yaml_lines import Key, LinedYaml


@dataclass(frozen=True)
class Row:
    """A row of the tables: an algorithm with the hparams that make it this row."""

    label: str
    algorithm: str
    hparams: Mapping[str, Any] = field(default_factory=dict)
    line: int = 0  # in the sweep file


@dataclass(frozen=True)
class SweepSpec:
    """What a sweep declares; its fields are the keys of a sweep file.

    Args:
        name: the file's stem, and the folder below ``results/``.
        datasets: names of ``catalog.DATASETS``.
        algorithms: the rows, in table order.
        protocol: a name of ``protocols.PROTOCOLS``.
        trials: how many trial seeds, from 0.
        draws: how many hparams seeds, from 0; 1 runs the defaults only.
        test_envs: which environments to hold out, one run each; None holds out each in turn.
        pairs: also hold out every pair, which leave-one-domain-out selection needs.
        hparams, steps, checkpoint_freq, holdout_fraction, evaluate, precision, data_path, compile, plugins: for every
            run, as in RunSpec, but for the defaults: a sweep takes the fast modes.
        expected: published averages by dataset and label, in percent, with their source, see ``expected.py``.

    """

    name: str
    datasets: tuple[str, ...]
    algorithms: tuple[Row, ...]
    protocol: str = DEFAULT_PROTOCOL
    trials: int = 3
    draws: int = 1
    test_envs: tuple[str, ...] | None = None
    pairs: bool = False
    hparams: Mapping[str, Any] = field(default_factory=dict)
    steps: int | None = None
    checkpoint_freq: int | None = None
    holdout_fraction: float = 0.2
    evaluate: str = "needed"
    precision: str = "auto"
    data_path: str = "cached"
    compile: str = "auto"
    plugins: tuple[str, ...] = ()
    expected: Mapping[str, Any] = field(default_factory=dict)


def load_sweep(path: Path) -> SweepSpec:
    """Read a sweep file; raise InputError with file, line and key for anything that cannot be used."""
    yaml = LinedYaml(path)
    if not isinstance(yaml.data, dict):
        raise yaml.error((), "a sweep file is a list of keys such as 'datasets:' and 'algorithms:'")
    known = {item.name: item for item in fields(SweepSpec) if item.name != "name"}
    for key in yaml.data:
        if key not in known:
            raise yaml.error((key,), str(unknown("key", key, known)))
    for key, item in known.items():
        if item.default is MISSING and item.default_factory is MISSING and key not in yaml.data:
            raise yaml.error((), f"key '{key}' is missing")
    values = {key: _READERS[key](yaml, (key,), value) for key, value in yaml.data.items()}
    spec = SweepSpec(name=path.stem, **values)
    _check_environments(yaml, spec)
    if "expected" in yaml.data:
        labels = [row.label for row in spec.algorithms]
        parse_expected(spec.expected, spec.datasets, labels, lambda key, text: yaml.error(("expected", *key), text))
    return spec


def _check_environments(yaml: LinedYaml, spec: SweepSpec) -> None:
    for dataset in spec.datasets:
        facts = dataset_facts(dataset)
        if spec.pairs and len(facts.names) < 3:
            raise yaml.error(
                ("pairs",),
                f"pairs need at least 3 environments, {dataset} has {len(facts.names)}; drop 'pairs: true'",
            )
        for index, env in enumerate(spec.test_envs or ()):
            _named(yaml, ("test_envs", index), facts.environment_index, env)


def _named(yaml: LinedYaml, key: Key, check: Any, value: Any) -> Any:
    """Run a check that raises InputError, and add file and line to its sentence."""
    try:
        return check(value)
    except InputError as error:
        raise yaml.error(key, f"{key[0]}: {error}") from None


def _items(yaml: LinedYaml, key: Key, value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise yaml.error(key, f"{key[0]} takes a list of at least one item, got {value!r}")
    return value


def _datasets(yaml: LinedYaml, key: Key, value: Any) -> tuple[str, ...]:
    items = _items(yaml, key, value)
    for index, name in enumerate(items):
        _named(yaml, (*key, index), dataset_facts, _text(yaml, (*key, index), name))
    return _distinct(yaml, key, items)


def _text(yaml: LinedYaml, key: Key, value: Any) -> str:
    if not isinstance(value, str):
        raise yaml.error(key, f"{key[0]} takes a name, got {value!r}")
    return value


def _distinct(yaml: LinedYaml, key: Key, items: list[str]) -> tuple[str, ...]:
    for index, item in enumerate(items):
        if item in items[:index]:
            raise yaml.error((*key, index), f"{key[0]}: {item!r} is given twice")
    return tuple(items)


def _rows(yaml: LinedYaml, key: Key, value: Any) -> tuple[Row, ...]:
    rows = [_row(yaml, (*key, index), item) for index, item in enumerate(_items(yaml, key, value))]
    _distinct(yaml, key, [row.label for row in rows])
    return tuple(rows)


def _row(yaml: LinedYaml, key: Key, item: Any) -> Row:
    if isinstance(item, str):
        item = {"name": item}
    if not isinstance(item, dict) or "name" not in item:
        raise yaml.error(key, f"a row is a name or {{name: ..., label: ..., hparams: ...}}, got {item!r}")
    for given in item:
        if given not in ("name", "label", "hparams"):
            raise yaml.error((*key, given), str(unknown("key of a row", given, ("name", "label", "hparams"))))
    name = str(item["name"])
    _named(yaml, key, split_name, name)
    hparams = _hparams(yaml, (*key, "hparams"), item.get("hparams", {}))
    if hparams and "label" not in item:
        raise yaml.error(key, f"a row with hparams needs a label, so that tables can tell it from plain {name}")
    return Row(str(item.get("label", name)), name, hparams, yaml.lines[key])


def _hparams(yaml: LinedYaml, key: Key, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise yaml.error(key, f"hparams takes a mapping of names to values, got {value!r}")
    for name, given in value.items():
        if not isinstance(given, bool | int | float | str):
            raise yaml.error((*key, name), f"hparam {name} takes one value, got {given!r}")
    return {name: plain_number(given) for name, given in value.items()}


def _environments(yaml: LinedYaml, key: Key, value: Any) -> tuple[str, ...] | None:
    return None if value == "all" else _distinct(yaml, key, [str(item) for item in _items(yaml, key, value)])


def _count(yaml: LinedYaml, key: Key, value: Any) -> int:
    number = same_spelling(value)
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise yaml.error(key, f"{key[0]} takes a whole number, at least 1, got {value!r}")
    return number


def _plugins(yaml: LinedYaml, key: Key, value: Any) -> tuple[str, ...]:
    items = _items(yaml, key, value)
    for index, name in enumerate(items):
        _named(yaml, (*key, index), module_names, [_text(yaml, (*key, index), name)])
    return _distinct(yaml, key, items)


def _switch(yaml: LinedYaml, key: Key, value: Any) -> bool:
    if not isinstance(value, bool):
        raise yaml.error(key, f"{key[0]} takes true or false, got {value!r}")
    return value


def _fraction(yaml: LinedYaml, key: Key, value: Any) -> float:
    number = plain_number(value)
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < 1:
        raise yaml.error(key, f"{key[0]} takes a number between 0 and 1, got {value!r}")
    return float(number)


def _choice(yaml: LinedYaml, key: Key, value: Any) -> str:
    allowed = CHOICES[str(key[0])]
    if isinstance(value, bool) and "on" in allowed:
        value = "on" if value else "off"  # YAML reads on and off as booleans
    if value not in allowed:
        raise yaml.error(key, str(unknown(f"value of {key[0]}:", value, allowed)))
    return value


def _protocol(yaml: LinedYaml, key: Key, value: Any) -> str:
    return _named(yaml, key, get_protocol, _text(yaml, key, value)).name


_READERS: dict[str, Callable[[LinedYaml, Key, Any], Any]] = {
    "datasets": _datasets,
    "algorithms": _rows,
    "protocol": _protocol,
    "trials": _count,
    "draws": _count,
    "test_envs": _environments,
    "pairs": _switch,
    "hparams": _hparams,
    "steps": _count,
    "checkpoint_freq": _count,
    "holdout_fraction": _fraction,
    **dict.fromkeys(CHOICES, _choice),
    "plugins": _plugins,
    "expected": lambda yaml, key, value: value,  # checked once the sweep's datasets and rows are known
}
