"""Wrappers, datasets and backbones that a plug-in module adds, beside algorithms and callbacks."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from dg_batchformer.catalog.datasets import DatasetFacts, add_dataset
from dg_batchformer.catalog.wrappers import GROUP, add_wrapper
from dg_batchformer.datasets.base import Dataset
from dg_batchformer.errors import InputError
from dg_batchformer.networks.backbones import Backbone, add_backbone
from dg_batchformer.plugins.adopt import public_classes
from dg_batchformer.registry import ALGORITHMS, DATASETS, WRAPPERS, Registry
from dg_batchformer.wrappers.base import ACTS_ON, Wrapper


@dataclass(frozen=True)
class Extensions:
    """What a plug-in adds beside algorithms, by name."""

    wrappers: Mapping[str, type[Wrapper]] = field(default_factory=dict)
    datasets: Mapping[str, type[Dataset]] = field(default_factory=dict)
    backbones: Mapping[str, Backbone] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.wrappers or self.datasets or self.backbones)

    def register(self, source: str, *, replaced: Collection[str] = ()) -> None:
        """Make everything available by name; what is registered already is skipped.

        Args:
            source: where it is from, for messages.
            replaced: names of wrappers and datasets that may be taken.

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
            add_backbone(name, backbone, source)


def extensions_of(module: ModuleType) -> Extensions:
    """Return what a module adds: public wrappers and datasets, and the backbones in its dict ``BACKBONES``."""
    classes = public_classes(module)
    backbones = getattr(module, "BACKBONES", {})
    if not isinstance(backbones, Mapping) or not all(isinstance(value, Backbone) for value in backbones.values()):
        raise InputError(
            f"plug-in {module.__name__}: BACKBONES must be a dict from names to networks.backbones.Backbone, got "
            f"{backbones!r:.100}"
        )
    return Extensions(
        {name: value for name, value in classes.items() if issubclass(value, Wrapper)},
        {name: value for name, value in classes.items() if issubclass(value, Dataset)},
        backbones,
    )


def load_installed_wrapper(name: str) -> None:
    """Register the wrapper of that name from an entry point, if there is one."""
    for entry in entry_points(group=GROUP, name=name):
        try:
            found = entry.load()
        except Exception as error:
            raise InputError(f"wrapper {name} of {entry.value} cannot be imported: {error}") from None
        if not isinstance(found, type) or not issubclass(found, Wrapper):
            raise InputError(f"wrapper {name}: {entry.value} is not a class that extends wrappers.base.Wrapper")
        Extensions(wrappers={name: found}).register(f"entry point {entry.value}")


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
