"""Expand a sweep file to its runs."""

from collections.abc import Iterator, Mapping
from itertools import combinations, product
from math import prod
from typing import Any

from dg_batchformer.errors import InputError
from dg_batchformer.spec.manifest import SweepRun, racing
from dg_batchformer.spec.run import CHOICES, RunRequest, RunSpec
from dg_batchformer.spec.sweep import MOST_RUNS, Row, SweepSpec


def expand(sweep: SweepSpec) -> list[SweepRun]:
    """Return all runs in DomainBed's order: trial, dataset, imbalance, row, test environments, hparams seed.

    The points of a grid, in its order, take the place of hparams seeds. Runs of the winners of a search are not
    included, as their hparams are not known before.

    Raises InputError for an invalid run, for a race whose rungs are not evaluations, or for more than 200,000 runs.
    """
    imbalances = sweep.imbalance or (None,)
    grids = {row.label: sweep.grid_of(row) for row in sweep.algorithms}
    num_points = sum(prod(map(len, grid.values())) for grid in grids.values())
    least = len(sweep.trial_seeds) * sweep.num_draws * len(sweep.datasets) * len(imbalances) * num_points
    if sweep.search is not None:
        winners = len(sweep.search.repeat) * len(sweep.datasets) * len(imbalances) * len(sweep.algorithms)
        if winners > MOST_RUNS:
            raise InputError(
                f"{sweep.name}: {len(sweep.search.repeat):,} trials of the winners make at least {winners:,} runs, but "
                f"a sweep may have at most {MOST_RUNS:,}; give fewer"
            )
    if least > MOST_RUNS:
        tried = f"{num_points:,} grid points of all rows" if any(grids.values()) else f"{sweep.num_draws:,} draws"
        raise InputError(
            f"{sweep.name}: {len(sweep.trial_seeds):,} trials and {tried} make at least {least:,} runs, "
            f"but a sweep may have at most {MOST_RUNS:,}; give fewer"
        )
    points = {label: [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
              for label, grid in grids.items()}  # fmt: skip
    runs = [
        SweepRun(
            row.label,
            _run(sweep, dataset, imbalance, row, point, test_envs, train_envs, trial, draw),
            tuple(point),
            searches=sweep.search is not None,
        )
        for trial, dataset, imbalance, row in product(sweep.trial_seeds, sweep.datasets, imbalances, sweep.algorithms)
        for test_envs, train_envs in _environments(sweep, dataset)
        for point in points[row.label]
        for draw in range(sweep.num_draws)
    ]
    if sweep.race is not None:
        for run in {run.spec.dataset: run for run in runs}.values():
            sweep.race.check(run.spec)
    return racing(runs, sweep.race)


_Envs = tuple[int, ...]


def _environments(sweep: SweepSpec, dataset: str) -> Iterator[tuple[_Envs, _Envs | None]]:
    """Yield (test environments, training environments) of runs; None means all others."""
    tested = sweep.tested(dataset)
    for train_envs in sweep.training_sets(dataset):
        yield tuple(env for env in tested if env not in train_envs), train_envs
    if sweep.train_envs is None:
        yield from ((envs, None) for envs in _held_out(sweep, tested, len(sweep.facts(dataset).names)))


def _held_out(sweep: SweepSpec, singles: list[int], num_envs: int) -> Iterator[_Envs]:
    for env in singles:
        yield (env,)
        if sweep.pairs:
            yield from (pair for pair in combinations(range(num_envs), 2) if _leads(pair, env, singles))


def _leads(pair: tuple[int, int], env: int, singles: list[int]) -> bool:
    """Return whether a pair is listed after this environment: the first of its members that is held out alone."""
    return next((member for member in pair if member in singles), None) == env


def _run(
    sweep: SweepSpec,
    dataset: str,
    imbalance: str | None,
    row: Row,
    point: Mapping[str, Any],
    test_envs: _Envs,
    train_envs: _Envs | None,
    trial: int,
    draw: int,
) -> RunSpec:
    return RunRequest(
        dataset=dataset,
        algorithm=row.algorithm,
        test_envs=test_envs,
        train_envs=train_envs,  # None: all the others
        environments=sweep.environments.get(dataset, ()),
        trial_seed=trial,
        hparams_seed=draw,
        hparams={**sweep.hparams, **row.hparams, **point},
        steps=sweep.steps,  # None: the protocol's
        checkpoint_freq=sweep.checkpoint_freq,
        holdout_fraction=sweep.holdout_fraction,
        protocol=sweep.protocol,
        plugins=sweep.plugins,
        imbalance=imbalance,
        **{name: getattr(sweep, name) for name in CHOICES},
    ).resolve()
