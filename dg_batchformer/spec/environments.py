"""Which environments a run trains on and which it tests on."""

from collections.abc import Iterable, Sequence

from dg_batchformer.catalog.datasets import DATASETS, DatasetFacts
from dg_batchformer.errors import InputError

Given = Sequence[int | str] | None


def resolve_environments(facts: DatasetFacts, train: Given, test: Given) -> tuple[tuple[int, ...], ...]:
    """Return the environments trained and tested on, as sorted indices; either is by default what the other leaves.

    Raises InputError for names that are not there, an environment that is in both, and where one of them is empty.
    """
    trains, tests = (None if given is None else environment_indices(facts, given) for given in (train, test))
    if tests is None:
        tests = (0,) if trains is None else _others(facts, trains)
        if not tests:
            raise InputError(f"train_envs names all environments of {facts.name}: none is left to test on")
    if not tests:
        raise InputError(f"test_envs is empty: name at least one environment of {facts.name} to hold out")
    if trains is None:
        trains = _others(facts, tests)
        if not trains:
            raise InputError(f"test_envs holds out all environments of {facts.name}: none is left to train on")
    if not trains:
        raise InputError(f"train_envs is empty: name at least one environment of {facts.name} to train on")
    for env in trains:
        if env in tests:
            raise InputError(
                f"{facts.names[env]} of {facts.name} is in train_envs and in test_envs; take it out of one"
            )
    return trains, tests


def environment_indices(facts: DatasetFacts, given: Iterable[int | str]) -> tuple[int, ...]:
    """Return environments, given by index or name, as sorted indices."""
    return tuple(sorted({facts.environment_index(env) for env in given}))


def _others(facts: DatasetFacts, envs: Sequence[int]) -> tuple[int, ...]:
    return tuple(env for env in range(len(facts.names)) if env not in envs)


def named_environments(dataset: str, names: Sequence[str]) -> tuple[str, ...]:
    """Check the names of the environments of data of one's own; () for a dataset of the catalog."""
    if names and dataset in DATASETS:
        raise InputError(f"environments are named for data of your own; those of {dataset} are known")
    if isinstance(names, str) or not all(isinstance(name, str) and name for name in names):
        raise InputError(f"environments takes a list of names, got {names!r}")
    if len(names) == 1 or len(set(names)) < len(names):
        raise InputError(f"environments takes at least two different names, got {', '.join(names)}")
    return tuple(names)
