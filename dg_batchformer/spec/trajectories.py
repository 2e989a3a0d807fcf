"""Trajectories: wrappers that average weights do not change the updates, so one training serves several runs."""

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from functools import lru_cache
from operator import attrgetter
from typing import Any

from dg_batchformer.catalog.wrappers import own_averaging_wrappers
from dg_batchformer.spec.manifest import SweepRun
from dg_batchformer.spec.names import canonical_name
from dg_batchformer.spec.run import RunSpec

Trajectory = tuple[SweepRun, ...]
"""Runs of a sweep that make the same updates."""


def base_run(spec: RunSpec) -> RunSpec:
    """Return the run that makes the same updates without averaging weights: ``ERM+BF`` for ``SWAD+BF``.

    Both have the same seed, as it does not depend on wrappers; the hparams of the averaging wrapper are left out.
    """
    base, hparams = _of_base(spec)
    return spec if base == spec.algorithm else replace(spec, algorithm=base, hparams=hparams)


def trajectories(runs: Iterable[SweepRun], *, share: bool = True) -> list[Trajectory]:
    """Group runs by trajectory, in the order of their first runs; without ``share``, every run has its own."""
    if not share:
        return [(run,) for run in runs]
    groups: dict[object, list[SweepRun]] = {}
    for run in runs:
        base, hparams = _of_base(run.spec)  # hashing base_run(run.spec) would be slow for 50,000 runs
        groups.setdefault((base, tuple(hparams.items()), _other_fields(run.spec)), []).append(run)
    return [tuple(group) for group in groups.values()]


_other_fields = attrgetter(*(item.name for item in fields(RunSpec) if item.name not in ("algorithm", "hparams")))


def _of_base(spec: RunSpec) -> tuple[str, Mapping[str, Any]]:
    """Return algorithm and hparams of ``base_run``."""
    base, averaging = _without_averaging(spec.algorithm)
    if averaging is None:
        return spec.algorithm, spec.hparams
    prefix = hparam_prefix(averaging)
    return base, {name: value for name, value in spec.hparams.items() if not name.startswith(prefix)}


def averages(spec: RunSpec) -> bool:
    """Return whether a run averages weights."""
    return _without_averaging(spec.algorithm)[1] is not None


def hparam_prefix(wrapper: str) -> str:
    """Return the prefix of the hparams of an averaging wrapper."""
    return f"{wrapper.lower()}_"


@lru_cache(maxsize=1024)
def _without_averaging(algorithm: str) -> tuple[str, str | None]:
    """Split a canonical name into the name without its averaging wrapper, and that wrapper; None if it has none.

    Wrappers of plug-ins stay in the name: they may do more than average.
    """
    parts = algorithm.split("+")
    averaging = [part for part in parts if part in own_averaging_wrappers()]
    if len(averaging) != 1:  # two are refused when the algorithm is built
        return algorithm, None
    rest = "+".join(part for part in parts if part not in averaging) or "ERM"
    return canonical_name(rest, is_known=False), averaging[0]
