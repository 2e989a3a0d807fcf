"""Resolve the training and test environments of a run."""

from collections.abc import Iterable, Sequence

from dg_batchformer.catalog.datasets import DATASETS, DatasetFacts, added_environments, is_dataset
from dg_batchformer.errors import InputError

Given = Sequence[int | str] | None


def resolve_environments(facts: DatasetFacts, train: Given, test: Given) -> tuple[tuple[int, ...], ...]:
    """Return the training and test environments, as sorted indices; each defaults to the complement of the other.

    Raises InputError for an unknown name, an environment in both, or if one of them is empty.
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
                f"{facts.names[env]} of {facts.name} is in both train_envs and test_envs; remove it from one"
            )
    return trains, tests


def environment_indices(facts: DatasetFacts, given: Iterable[int | str]) -> tuple[int, ...]:
    """Convert environments, given by index or name, to sorted indices."""
    return tuple(sorted({facts.environment_index(env) for env in given}))


def _others(facts: DatasetFacts, envs: Sequence[int]) -> tuple[int, ...]:
    return tuple(env for env in range(len(facts.names)) if env not in envs)


def named_environments(dataset: str, names: Sequence[str]) -> tuple[str, ...]:
    """Validate the environment names of a custom dataset; () for one of ours, and all names for one of a plug-in."""
    if dataset in DATASETS if names else is_dataset(dataset):
        own = added_environments(dataset)
        if tuple(names) in ((), own):
            return own
        raise InputError(f"environments is only for custom datasets; those of {dataset} are known")
    if isinstance(names, str) or not all(isinstance(name, str) and name for name in names):
        raise InputError(f"environments must be a list of names, got {names!r}")
    if len(names) == 1 or len(set(names)) < len(names):
        raise InputError(f"environments must be at least two different names, got {', '.join(names)}")
    return tuple(names)
