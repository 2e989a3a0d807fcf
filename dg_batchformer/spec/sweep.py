"""SweepSpec: a set of runs, read from a YAML sweep file."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal

from dg_batchformer.catalog.custom import find_dataset
from dg_batchformer.catalog.datasets import DatasetFacts, dataset_facts
from dg_batchformer.errors import InputError, unknown
from dg_batchformer.hparams import plain_number, same_spelling
from dg_batchformer.spec.environments import environment_indices
from dg_batchformer.spec.expected import parse_expected
from dg_batchformer.spec.imbalance import parse_imbalance
from dg_batchformer.spec.names import module_names, split_name
from dg_batchformer.spec.protocols import DEFAULT_PROTOCOL, get_protocol
from dg_batchformer.spec.run import CHOICES
from dg_batchformer.spec.yaml_lines import Key, LinedYaml
from dg_batchformer.text.spelling import one_form


@dataclass(frozen=True)
class Row:
    """A row of the tables: an algorithm with its hparams."""

    label: str
    algorithm: str
    hparams: Mapping[str, Any] = field(default_factory=dict)
    line: int = 0  # in the sweep file


@dataclass(frozen=True)
class SweepSpec:
    """The content of a sweep file; the fields are its keys.

    Args:
        name: stem of the file name, and folder in ``results/``.
        datasets: names in ``catalog.datasets.DATASETS``, or custom datasets.
        algorithms: the rows, in table order.
        protocol: a name in ``spec.protocols.PROTOCOLS``.
        trials: number of trial seeds, from 0; or a list of seeds.
        draws: number of hparams seeds, from 0; 1 runs only the defaults.
        test_envs: environments to hold out, one run each; None holds out each in turn.
        train_envs: environments to train on, one run per item, tested on all ``test_envs`` that it does not train on;
            ``all`` trains on each environment alone. None trains on all that are not held out.
        imbalance: settings of ``spec/imbalance.py``, one run each; () uses all training images.
        pairs: also hold out every pair, as leave-one-domain-out selection requires.
        hparams, steps, checkpoint_freq, holdout_fraction, evaluate, precision, data_path, compile, plugins: for every
            run, as in RunSpec; but by default, sweeps use the fast modes and the protocol's data path.
        expected: published averages in percent by dataset and label, with their source, see ``spec/expected.py``.
        environments: of custom datasets, by dataset; not a key of the file, but read from the data.
        question: the comment at the top of the file.

    """

    name: str
    datasets: tuple[str, ...]
    algorithms: tuple[Row, ...]
    protocol: str = DEFAULT_PROTOCOL
    trials: int | tuple[int, ...] = 3
    draws: int = 1
    test_envs: tuple[str, ...] | None = None
    train_envs: tuple[tuple[str, ...], ...] | Literal["all"] | None = None
    imbalance: tuple[str, ...] = ()
    pairs: bool = False
    hparams: Mapping[str, Any] = field(default_factory=dict)
    steps: int | None = None
    checkpoint_freq: int | None = None
    holdout_fraction: float = 0.2
    evaluate: str = "needed"
    precision: str = "auto"
    data_path: str | None = None
    compile: str = "auto"
    plugins: tuple[str, ...] = ()
    expected: Mapping[str, Any] = field(default_factory=dict)
    environments: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    question: str = ""

    @property
    def trial_seeds(self) -> Sequence[int]:
        """Trial seeds, in order."""
        return range(self.trials) if isinstance(self.trials, int) else self.trials

    def facts(self, dataset: str) -> DatasetFacts:
        """Return the facts of one of the sweep's datasets."""
        return dataset_facts(dataset, self.environments.get(dataset, ()))

    def training_sets(self, dataset: str) -> list[tuple[int, ...]]:
        """Return the training environments of each run as indices; [] without ``train_envs``."""
        facts = self.facts(dataset)
        if self.train_envs == "all":
            return [(env,) for env in range(len(facts.names))]
        return [environment_indices(facts, envs) for envs in self.train_envs or ()]

    def tested(self, dataset: str) -> list[int]:
        """Return the sorted indices of test environments."""
        facts = self.facts(dataset)
        return list(environment_indices(facts, self.test_envs or range(len(facts.names))))


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
    _check_environments(yaml, spec)
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
    found = [_named(yaml, ("datasets", index), look, name) for index, name in enumerate(datasets)]
    names = _distinct(yaml, ("datasets",), [name for name, _ in found])
    return {"datasets": names, "environments": {name: environments for name, environments in found if environments}}


def _check_environments(yaml: LinedYaml, spec: SweepSpec) -> None:
    if spec.expected and spec.train_envs is not None:
        raise yaml.error(
            ("expected",),
            "expected cannot be combined with train_envs: remove one of the two keys",
        )
    if spec.pairs and spec.train_envs is not None:
        raise yaml.error(
            ("pairs",),
            "pairs cannot be combined with train_envs: remove one of the two keys",
        )
    for dataset in spec.datasets:
        facts = spec.facts(dataset)
        if spec.pairs and len(facts.names) < 3:
            raise yaml.error(
                ("pairs",),
                f"pairs need at least 3 environments, but {dataset} has {len(facts.names)}; remove 'pairs: true'",
            )
        for index, env in enumerate(spec.test_envs or ()):
            _named(yaml, ("test_envs", index), facts.environment_index, env)
        _check_training_sets(yaml, spec, facts)


def _check_training_sets(yaml: LinedYaml, spec: SweepSpec, facts: DatasetFacts) -> None:
    """Check that training environments exist, and leave an environment to test on."""
    if isinstance(spec.train_envs, tuple):
        for index, envs in enumerate(spec.train_envs):
            for env in envs:
                _named(yaml, ("train_envs", index), facts.environment_index, env)
    training_sets = spec.training_sets(facts.name)
    for index, train_envs in enumerate(training_sets):
        names = ", ".join(facts.names[env] for env in train_envs)
        key = ("train_envs",) if spec.train_envs == "all" else ("train_envs", index)
        if train_envs in training_sets[:index]:
            raise yaml.error(key, f"train_envs: {names} is given twice")
        if set(spec.tested(facts.name)) <= set(train_envs):
            raise yaml.error(key, f"train_envs: training on {names} leaves no environment of {facts.name} to test on")


def _named(yaml: LinedYaml, key: Key, check: Any, value: Any) -> Any:
    """Run a check that raises InputError, and add file and line to its message."""
    try:
        return check(value)
    except InputError as error:
        raise yaml.error(key, f"{key[0]}: {error}") from None


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


def _row(yaml: LinedYaml, key: Key, item: Any) -> Row:
    name_key: Key = (*key, "name")
    if yaml.text(key):
        item, name_key = {"name": item}, key
    if not isinstance(item, dict) or "name" not in item:
        raise yaml.error(key, f"a row is a name or {{name: ..., label: ..., hparams: ...}}, got {item!r}")
    for given in item:
        if given not in ("name", "label", "hparams"):
            raise yaml.error((*key, given), str(unknown("key of a row", given, ("name", "label", "hparams"))))
    name = _text(yaml, name_key, item["name"])
    _named(yaml, key, split_name, name)
    hparams = _hparams(yaml, (*key, "hparams"), item.get("hparams", {}))
    if hparams and "label" not in item:
        raise yaml.error(key, f"a row with hparams needs a label, to distinguish it from plain {name}")
    label = one_form(_text(yaml, (*key, "label"), item["label"]) if "label" in item else name)
    if not label.isprintable() or not label.strip():
        raise yaml.error((*key, "label"), f"a label must be one printable line, got {label!r}")
    return Row(label, name, hparams, yaml.lines[key])


def _hparams(yaml: LinedYaml, key: Key, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise yaml.error(key, f"hparams must be a mapping from names to values, got {value!r}")
    for name, given in value.items():
        if not isinstance(given, bool | int | float | str):
            raise yaml.error((*key, name), f"hparam {name} must be a single value, got {given!r}")
    return {name: plain_number(given) for name, given in value.items()}


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
    return _distinct(yaml, key, [str(_named(yaml, key, parse_imbalance, text)) for text in texts])


def _count(yaml: LinedYaml, key: Key, value: Any, least: int = 1) -> int:
    number = same_spelling(value)
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise yaml.error(key, f"{key[0]} must be a whole number, at least {least}, got {value!r}")
    return number


def _trials(yaml: LinedYaml, key: Key, value: Any) -> int | tuple[int, ...]:
    """Parse ``trials``: a number of trials, or a list of seeds."""
    if not isinstance(value, list):
        return _count(yaml, key, value)
    seeds = tuple(_count(yaml, (*key, index), seed, least=0) for index, seed in enumerate(_items(yaml, key, value)))
    for index, seed in enumerate(seeds):
        if seed in seeds[:index]:
            raise yaml.error((*key, index), f"{key[0]}: {seed} is given twice")
    return seeds


def _plugins(yaml: LinedYaml, key: Key, value: Any) -> tuple[str, ...]:
    names = _texts(yaml, key, value)
    for index, name in enumerate(names):
        _named(yaml, (*key, index), module_names, [name])
    return _distinct(yaml, key, names)


def _switch(yaml: LinedYaml, key: Key, value: Any) -> bool:
    if not isinstance(value, bool):
        raise yaml.error(key, f"{key[0]} must be true or false, got {value!r}")
    return value


def _fraction(yaml: LinedYaml, key: Key, value: Any) -> float:
    number = plain_number(value)
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < 1:
        raise yaml.error(key, f"{key[0]} must be a number between 0 and 1, got {value!r}")
    return float(number)


def _choice(yaml: LinedYaml, key: Key, value: Any) -> str:
    allowed = CHOICES[str(key[0])]
    if isinstance(value, bool) and "on" in allowed:
        value = "on" if value else "off"  # YAML parses on and off as booleans
    if value not in allowed:
        raise yaml.error(key, str(unknown(f"value of {key[0]}:", value, allowed)))
    return value


def _protocol(yaml: LinedYaml, key: Key, value: Any) -> str:
    return _named(yaml, key, get_protocol, _text(yaml, key, value)).name


_READERS: dict[str, Callable[[LinedYaml, Key, Any], Any]] = {
    "datasets": _datasets,
    "algorithms": _rows,
    "protocol": _protocol,
    "trials": _trials,
    "draws": _count,
    "test_envs": _environments,
    "train_envs": _training_sets,
    "imbalance": _imbalance,
    "pairs": _switch,
    "hparams": _hparams,
    "steps": _count,
    "checkpoint_freq": _count,
    "holdout_fraction": _fraction,
    **dict.fromkeys(CHOICES, _choice),
    "plugins": _plugins,
    "expected": lambda yaml, key, value: value,  # checked when datasets and rows are known
}
