"""Show the selected hparams draw or grid point of every row, test environment and trial."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dg_batchformer.results.collection import CollectedRun, Collection
from dg_batchformer.tables.table import Draw, Section
from dg_batchformer.text.printable import one_line


def with_draws(sections: Sequence[Section], collection: Collection) -> list[Section]:
    """Add the selected draws to the dataset tables of sections."""
    drawn = _drawn(collection.runs)
    return [_with_draws(section, collection, drawn) for section in sections]


def _with_draws(section: Section, collection: Collection, drawn: Mapping[tuple[str, str], Sequence[str]]) -> Section:
    draws: dict[str, list[Draw]] = defaultdict(list)
    places = {label: place for place, label in enumerate(collection.rows)}
    for benchmark, label, env, trial in sorted(section.choices, key=lambda key: (places[key[1]], *key[2:])):
        run, score = section.choices[benchmark, label, env, trial]
        hparams = {name: one_line(_said(_hparams(run).get(name))) for name in drawn[benchmark, label]}
        environment = collection.environments[benchmark][env]
        draws[benchmark].append(Draw(label, environment, trial, run.hparams_seed, score.step, hparams, _kind(run)))
    tables = [replace(table, draws=draws.get(table.title, ())) for table in section.tables]
    return replace(section, tables=tables)


def _kind(run: CollectedRun) -> str:
    if run.winner is not None:
        return "winner"
    return "grid point" if run.point else "draw"


def _drawn(runs: Sequence[CollectedRun]) -> dict[tuple[str, str], list[str]]:
    """Return, by benchmark and row, the names of hparams that differ between draws, or that a search chose."""
    by_place: dict[tuple[object, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for run in runs:
        if run.constant:  # also of runs that a race stopped
            by_place[run.benchmark, run.label, run.test_envs, run.trial_seed].append(_hparams(run))
    found: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for run in runs:
        if run.winner is not None:
            found[run.benchmark, run.label].update(dict.fromkeys(run.point))
    for (benchmark, label, *_), drawn in by_place.items():
        names = dict.fromkeys(name for hparams in drawn for name in hparams)
        differing = [name for name in names if any(one.get(name) != drawn[0].get(name) for one in drawn)]
        found[str(benchmark), str(label)].update(dict.fromkeys(differing))
    return {place: sorted(names) for place, names in found.items()}


def _hparams(run: CollectedRun) -> Mapping[str, Any]:
    hparams = run.constant.get("hparams")
    return hparams if isinstance(hparams, dict) else {}


def _said(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
