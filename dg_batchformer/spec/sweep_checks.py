"""Check the keys of a sweep file against each other; errors name file and line."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from dg_batchformer.catalog.datasets import DatasetFacts
from dg_batchformer.errors import InputError
from dg_batchformer.spec.sweep import SweepSpec
from dg_batchformer.spec.yaml_lines import Key, LinedYaml

_Given = TypeVar("_Given")
_Checked = TypeVar("_Checked")


def check_keys(yaml: LinedYaml, spec: SweepSpec) -> None:
    """Raise InputError for keys that exclude each other, or that do not fit the datasets."""
    for check in (_check_environments, _check_grids, _check_search, _check_race):
        check(yaml, spec)


def named(yaml: LinedYaml, key: Key, check: Callable[[_Given], _Checked], value: _Given) -> _Checked:
    """Run a check that raises InputError, and add file and line to its message."""
    try:
        return check(value)
    except InputError as error:
        raise yaml.error(key, f"{key[0]}: {error}") from None


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
            named(yaml, ("test_envs", index), facts.environment_index, env)
        _check_training_sets(yaml, spec, facts)


def _check_training_sets(yaml: LinedYaml, spec: SweepSpec, facts: DatasetFacts) -> None:
    """Check that training environments exist, and leave an environment to test on."""
    if isinstance(spec.train_envs, tuple):
        for index, envs in enumerate(spec.train_envs):
            for env in envs:
                named(yaml, ("train_envs", index), facts.environment_index, env)
    training_sets = spec.training_sets(facts.name)
    for index, train_envs in enumerate(training_sets):
        names = ", ".join(facts.names[env] for env in train_envs)
        key = ("train_envs",) if spec.train_envs == "all" else ("train_envs", index)
        if train_envs in training_sets[:index]:
            raise yaml.error(key, f"train_envs: {names} is given twice")
        if set(spec.tested(facts.name)) <= set(train_envs):
            raise yaml.error(key, f"train_envs: training on {names} leaves no environment of {facts.name} to test on")


def _check_grids(yaml: LinedYaml, spec: SweepSpec) -> None:
    """Check that a hparam has either one value or a list of values, and that grids replace random draws."""
    places: list[tuple[Key, Mapping[str, Any], Mapping[str, Any]]] = [((), spec.hparams, spec.grid)]
    places += [(("algorithms", index), row.hparams, row.grid) for index, row in enumerate(spec.algorithms)]
    for key, hparams, grid in places:
        for name in grid:
            if name in hparams:
                raise yaml.error((*key, "grid", name), f"both grid and hparams set {name}: keep one of them")
            if spec.num_draws > 1:
                raise yaml.error(
                    (*key, "grid"),
                    f"grid cannot be combined with draws: {spec.num_draws}, which draw hparams at random: remove one "
                    "of the two keys",
                )


def _check_search(yaml: LinedYaml, spec: SweepSpec) -> None:
    """Check that a search has something to try, and that no other key tries hparams."""
    excluded = {
        "search": ("trials", "draws", "pairs", "hparams_from") if spec.search is not None else (),
        "hparams_from": ("draws", "grid") if spec.hparams_from is not None else (),
    }
    for key, others in excluded.items():
        for other in others:
            if other in (yaml.data or {}):
                raise yaml.error((other,), f"{other} cannot be combined with {key}: remove one of the two keys")
    if spec.hparams_from is not None and any(spec.grid_of(row) for row in spec.algorithms):
        raise yaml.error(("algorithms",), "a row with a grid cannot be combined with hparams_from: remove one of them")
    if spec.search is not None and not _tries(spec):
        raise yaml.error(("search",), "search tries nothing: give it draws, such as {draws: 20, ...}, or add a grid")


def _tries(spec: SweepSpec) -> bool:
    """Return whether any row tries more than one set of hparams."""
    values = [of_hparam for row in spec.algorithms for of_hparam in spec.grid_of(row).values()]
    return spec.num_draws > 1 or any(len(of_hparam) > 1 for of_hparam in values)


def _check_race(yaml: LinedYaml, spec: SweepSpec) -> None:
    """Check that a race has runs to compare, each of which can be judged alone."""
    if spec.race is None:
        return
    if not _tries(spec):
        raise yaml.error(("race",), "race has nothing to compare: give draws, such as draws: 20, or add a grid")
    if spec.pairs:
        raise yaml.error(
            ("race",),
            "race cannot be combined with pairs: leave-one-domain-out selection needs all runs of a draw, and a race "
            "would stop some of them; remove one of the two keys",
        )
    if spec.search is not None and spec.search.draws == 1 and len(spec.search.on) > 1:
        raise yaml.error(
            ("race",),
            "race cannot be combined with a search of a grid on several trials: it compares their mean, and a race "
            "would stop some of them; search on one trial, or remove race",
        )
