"""Text of the lists of extensions of every kind, and of hparams."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from tabulate import tabulate

from dg_batchformer.algorithms import Algorithm, get_algorithm_class
from dg_batchformer.callbacks.load import describe_callbacks, find_callbacks
from dg_batchformer.catalog import datasets
from dg_batchformer.catalog.image_formats import READ_ENDINGS
from dg_batchformer.catalog.installed import installed_names, load_installed
from dg_batchformer.errors import InputError
from dg_batchformer.hparams import NOTHING, HParam
from dg_batchformer.hparams_registry import default_hparams, search_space
from dg_batchformer.networks.backbones import describe_backbone, describe_backbones
from dg_batchformer.networks.batchformer import batchformers
from dg_batchformer.networks.freezing import freeze
from dg_batchformer.networks.timm_models import matches, search_timm
from dg_batchformer.optim.groups import describe_groups, featurizers, group_lines
from dg_batchformer.plugins.load import loaded_plugins
from dg_batchformer.registry import ALGORITHMS, DATASETS, WRAPPERS
from dg_batchformer.spec.names import split_name
from dg_batchformer.spec.protocols import PROTOCOLS, get_protocol
from dg_batchformer.sweep.launchers.base import LAUNCHERS, OURS, find_launcher

_WIDTH = 100  # characters, of a table
_CLASSES = 10  # for parameter counts if only the data tells the number of classes
_HEADERS = ["hparam", "default", "", "allowed", "description"]
_DEFAULT_WIDTH, _ALLOWED_WIDTH, _BETWEEN = 20, 25, 10  # the last: the star and the gaps between columns


def list_kind(kind: str, name: str | None, *, dataset: str, protocol: str) -> str:
    """Return a list of one kind: all entries, those that match a glob, or one entry in full."""
    if kind == "hparams":
        return _hparams(name or "ERM", dataset, protocol)
    if name is None:
        return _named(_lines(kind).items())
    if set(name) & set("*?["):
        return _named(_matching(kind, name).items())
    return _KINDS[kind][1](name)


def names_of(kind: str) -> list[str]:
    """Return the names of everything of a kind."""
    return [name for name in _lines(kind) if name != _OWN]


def _named(lines: Iterable[tuple[str, object]]) -> str:
    """Return a table of names and descriptions, at most ``_WIDTH`` columns wide."""
    rows = [(name, str(about)) for name, about in lines]
    left = _WIDTH - max(len(name) for name, _ in rows) - len("  ")
    return tabulate(rows, tablefmt="plain", disable_numparse=True, maxcolwidths=[None, left])


def _matching(kind: str, pattern: str) -> dict[str, str]:
    lines = {**_lines(kind), **(search_timm(pattern) if kind == "backbones" else {})}
    found = {name: line for name, line in lines.items() if matches(name, pattern)}
    if not found:
        raise InputError(f"none of the {kind} matches {pattern!r}; list {kind} shows all")
    return found


def _hparams(algorithm: str, dataset: str, protocol: str) -> str:
    space = search_space(algorithm, dataset, protocol=protocol)
    title = f"{algorithm} on {dataset} under {protocol}; * is drawn if hparams_seed is not 0"
    return "\n\n".join([title, _space(space), _groups(algorithm, dataset, protocol)])


def _groups(algorithm: str, dataset: str, protocol: str) -> str:
    """Return which parameters train at which learning rate, by default, in a network that takes no memory."""
    facts = datasets.dataset_facts(dataset)
    hparams = {**default_hparams(algorithm, dataset, protocol=protocol), "weights": "none", "freeze_bn": False}
    frozen = hparams.pop("freeze", NOTHING)
    size = hparams.get("image_size")
    shape = facts.shape if size is None else (facts.shape[0], size, size)
    classes = facts.num_classes or _CLASSES
    try:
        with torch.device("meta"):
            built = get_algorithm_class(algorithm)(shape, classes, len(facts.names) - 1, hparams)
    except Exception as error:  # whatever somebody's algorithm makes of tensors without memory
        return f"parameters: {algorithm} cannot be built without memory to count them ({type(error).__name__})"
    for featurizer in featurizers(built):
        freeze(featurizer, frozen, shape)
    for encoder in batchformers(built):  # attached before, and never frozen
        encoder.requires_grad_(True)
    return "\n".join([f"parameters by default, for {classes} classes:", *group_lines(describe_groups(built))])


def _space(space: Mapping[str, HParam]) -> str:
    rows: list[Sequence[object]] = [
        [name, hparam.default, "*" if hparam.draw else "", hparam.allowed, hparam.about]
        for name, hparam in space.items()
    ]
    padded = [f"{header}  " for header in _HEADERS]  # tabulate's least width of a column
    names, defaults = (max(len(str(cells[column])) for cells in [padded, *rows]) for column in (0, 1))
    left = _WIDTH - names - min(defaults, _DEFAULT_WIDTH) - _ALLOWED_WIDTH - _BETWEEN
    widths = [None, _DEFAULT_WIDTH, None, _ALLOWED_WIDTH, left]
    return tabulate(rows, headers=_HEADERS, disable_numparse=True, maxcolwidths=widths)


def _plugins(registry: Mapping[str, type] | Any) -> dict[str, str]:
    return {name: _headline(registry[name]) for name in registry}


def _lines(kind: str) -> dict[str, str]:
    """Return everything of a kind with a line each, which says of an installed package why it cannot be imported."""
    lines, unusable = _KINDS[kind][0], {}
    known = lines()
    for name in [name for name in installed_names(kind) if name not in known]:
        try:
            get_protocol(name) if kind == "protocols" else load_installed(kind, name)
        except InputError as error:
            unusable[name] = str(error)
    return {**lines(), **unusable}


def _headline(plugin: type) -> str:
    """Return the first line of a plug-in's module docstring, or of its own if the module defines several plug-ins."""
    alone = sum(vars(other).get("__module__") == plugin.__module__ for other in _offered(plugin)) == 1
    module = inspect.getmodule(plugin) if alone else None  # None too for a module of a fork
    about = inspect.getdoc(plugin if module is None else module)
    return next(iter((about or "").splitlines()), "")


def _offered(plugin: type) -> list[type]:
    registry = next(registry for registry in (ALGORITHMS, WRAPPERS) if plugin.__name__ in registry)
    return [registry[name] for name in registry]


def _algorithm(name: str) -> str:
    algorithm, wrappers = split_name(name)
    return "\n\n".join([_in_full(ALGORITHMS[algorithm]), *(_wrapper(wrapper) for wrapper in wrappers)])


def _behaviour(algorithm: type[Algorithm]) -> str:
    alone = "depends on the other samples of the batch" if algorithm.batch_dependent else "sample by sample"
    scopes = {"joint": "all training domains", "per_domain": "its own domain; domains are forwarded one by one"}
    rows = [["prediction", alone], ["under BF", f"a sample attends to {scopes[algorithm.attends]}"]]
    if algorithm.compares_domains:
        rows.append(["with one domain", "much like ERM, because it compares training domains"])
    if algorithm.shapes_features:
        rows.append(["on frozen features", "like ERM, because its terms train the featurizer only"])
    return tabulate(rows, tablefmt="plain")


def _wrapper(name: str) -> str:
    return _in_full(WRAPPERS[name])


def _in_full(plugin: Any) -> str:
    wraps = plugin.__name__ in WRAPPERS
    space = plugin.settings("PACS") if wraps else plugin.search_space("PACS")
    about = list(dict.fromkeys([_headline(plugin), *(inspect.getdoc(plugin) or "").split("\n\n")]))
    behaviour = [] if wraps else [_behaviour(plugin)]
    return "\n\n".join([*about, *behaviour, _space(space) if space else "no hparams of its own"])


def _dataset(name: str) -> str:
    if name == _OWN:
        return _ABOUT_OWN
    facts = datasets.dataset_facts(name)
    where = f"DATA_DIR/{facts.folder}/{facts.layout}" if facts.folder else "built in"
    envs = tabulate(
        [[env, label, name] for env, (label, name) in enumerate(zip(facts.labels, facts.names, strict=True))],
        headers=["env", "label", "name"],
        disable_numparse=True,
    )
    return f"{facts.name}: {facts.about}\nwhere: {where}\nclasses: {facts.num_classes or 'as on disk'}\n\n{envs}"


def _protocol(name: str) -> str:
    protocol = get_protocol(name)
    rows: list[tuple[str, object]] = [("about", protocol.about), ("source", protocol.source), ("steps", protocol.steps)]
    rows += [(f"steps on {dataset}", steps) for dataset, steps in protocol.steps_for.items()]
    rows.append(("evaluation every", protocol.checkpoint_freq or "set by the dataset"))
    rows += [(f"evaluation every, on {dataset}", freq) for dataset, freq in protocol.checkpoint_freq_for.items()]
    rows += [(f"{name}, by default", value) for name, value in protocol.defaults.items()]
    rows += [(f"{name}, on photographs", value) for name, value in protocol.photographs.items()]
    return _named(rows)


_KINDS: dict[str, tuple[Callable[[], Mapping[str, str]], Callable[[str], str]]] = {
    "algorithms": (lambda: _plugins(ALGORITHMS), _algorithm),
    "wrappers": (lambda: _plugins(WRAPPERS), _wrapper),
    "datasets": (lambda: _dataset_lines(), _dataset),
    "protocols": (lambda: {name: protocol.about for name, protocol in PROTOCOLS.items()}, _protocol),
    "backbones": (describe_backbones, describe_backbone),
    "launchers": (lambda: _launcher_lines(), lambda name: OURS.get(name) or _about(find_launcher(name))),
    "callbacks": (lambda: describe_callbacks(loaded_plugins()), lambda name: _callback(name)),
}


def _launcher_lines() -> dict[str, str]:
    return {**OURS, **{name: _about(launcher).partition("\n")[0] for name, launcher in LAUNCHERS.items()}}


def _callback(name: str) -> str:
    [callback] = find_callbacks([name], loaded_plugins())
    return _about(callback)


def _about(written: type) -> str:
    return inspect.getdoc(written) or written.__name__


def _dataset_lines() -> dict[str, str]:
    lines = {name: _dataset_line(name) for name in datasets.DATASETS if name in DATASETS}
    return {**lines, _OWN: f"your own data: {_OWN_FOLDER}, or listed in DATA_DIR/NAME.csv"}


_OWN = "NAME"
_OWN_FOLDER = "DATA_DIR/NAME/<domain>/<class>/<image>"
_ABOUT_OWN = f"""{_OWN}: your own data, under any name that is not listed
where: {_OWN_FOLDER}
or: DATA_DIR/NAME.csv, with a header and a row for each image: path,label,domain[,split]
or: DATA_DIR/NAME.json, a list of objects with these keys

Images end in {", ".join(READ_ENDINGS)};
other files are listed before training and not read. Paths are relative to DATA_DIR.
Domains are numbered in the order of their names; at least two are needed.
split is train or val; val images are the validation set, instead of a random share of every domain.
The hparams are those of PACS: list hparams ALGORITHM --dataset PACS"""


def _dataset_line(name: str) -> str:
    facts = datasets.dataset_facts(name)
    return f"{facts.about}: {', '.join(facts.names)}"
