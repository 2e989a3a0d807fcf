"""Wrappers, datasets, backbones, protocols and launchers that a plug-in adds, beside algorithms and callbacks."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from dg_batchformer.catalog.datasets import DatasetFacts, add_dataset
from dg_batchformer.catalog.wrappers import add_wrapper
from dg_batchformer.datasets.base import Dataset
from dg_batchformer.errors import InputError
from dg_batchformer.networks.backbones import Backbone, add_backbone
from dg_batchformer.plugins.adopt import public_classes
from dg_batchformer.registry import ALGORITHMS, DATASETS, WRAPPERS, Registry
from dg_batchformer.spec.protocols import add_protocol
from dg_batchformer.sweep.launchers.base import Launcher, add_launcher
from dg_batchformer.wrappers.base import ACTS_ON, Wrapper


@dataclass(frozen=True)
class Extensions:
    """What a plug-in adds beside algorithms, by name."""

    wrappers: Mapping[str, type[Wrapper]] = field(default_factory=dict)
    datasets: Mapping[str, type[Dataset]] = field(default_factory=dict)
    backbones: Mapping[str, Backbone] = field(default_factory=dict)
    protocols: Mapping[str, Path] = field(default_factory=dict)
    launchers: Mapping[str, type[Launcher]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any(vars(self).values())

    def register(self, source: str, *, replaced: Collection[str] = ()) -> None:
        """Make everything available by name; what is registered already is skipped.

        Args:
            source: where it is from, for messages.
            replaced: names that may be taken.

        Raises InputError for a name that is taken, and for what cannot be used.

        """
        for name, wrapper in _unknown(WRAPPERS, self.wrappers).items():
            _check_wrapper(source, name, wrapper)
            WRAPPERS.add({name: wrapper}, source, replaced=replaced)
            add_wrapper(name, wrapper.acts_on)
        for name, dataset in _unknown(DATASETS, self.datasets).items():
            facts = _facts(source, name, dataset)
            DATASETS.add({name: dataset}, source, replaced=replaced)
            add_dataset(facts)
        for name, backbone in self.backbones.items():
            add_backbone(name, backbone, source, replaced=replaced)
        for name, file in self.protocols.items():
            add_protocol(name, file, source, replaced=replaced)
        for name, launcher in self.launchers.items():
            add_launcher(name, launcher, source, replaced=replaced)


def extensions_of(module: ModuleType) -> Extensions:
    """Return what a module adds: its public wrappers, datasets and launchers, and its dicts BACKBONES and PROTOCOLS."""
    classes = public_classes(module)
    return Extensions(
        {name: value for name, value in classes.items() if issubclass(value, Wrapper)},
        {name: value for name, value in classes.items() if issubclass(value, Dataset)},
        _listed(module, "BACKBONES", Backbone, "networks.backbones.Backbone"),
        _listed(module, "PROTOCOLS", Path, "pathlib.Path, the files of protocols"),
        {name: value for name, value in classes.items() if issubclass(value, Launcher)},
    )


def _listed(module: ModuleType, table: str, kind: type, wanted: str) -> Mapping[str, Any]:
    """Return a dict of a module, whose values are of one kind; {} if the module has no such dict."""
    found = getattr(module, table, {})
    if not isinstance(found, Mapping) or not all(isinstance(value, kind) for value in found.values()):
        raise InputError(
            f"plug-in {module.__name__}: {table} must be a dict from names to {wanted}, got {found!r:.100}"
        )
    return found


def _unknown(registry: Registry, found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name not in registry or registry[name] is not value}


def _check_wrapper(source: str, name: str, wrapper: type[Wrapper]) -> None:
    """Raise InputError for a wrapper that cannot be part of a name."""
    acts_on = getattr(wrapper, "acts_on", None)
    if acts_on not in ACTS_ON:
        raise InputError(
            f"{source}: wrapper {name} has acts_on {acts_on!r}; set it to the stage it changes: {', '.join(ACTS_ON)}"
        )
    if name in ALGORITHMS:
        raise InputError(f"{source} has the wrapper {name}, but there is an algorithm of that name; rename the class")


def _facts(source: str, name: str, dataset: type[Dataset]) -> DatasetFacts:
    """Return the facts that a dataset class states; raise InputError if it states none, or those of another name."""
    facts = getattr(dataset, "FACTS", None)
    if not isinstance(facts, DatasetFacts):
        raise InputError(f"{source}: dataset {name} needs FACTS = DatasetFacts({name!r}, ...) of catalog.datasets")
    if facts.name != name:
        raise InputError(f"{source}: the FACTS of dataset {name} are those of {facts.name}; give both the same name")
    return facts
