"""Choose the winners of a search by validation, and declare their runs on further trials."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from dg_batchformer.errors import InputError
from dg_batchformer.results.collection import CollectedRun
from dg_batchformer.results.edges import differing, edges
from dg_batchformer.results.our_sweep import read_our_sweep
from dg_batchformer.results.selection import METHODS, Method, nan_lowest
from dg_batchformer.results.winners import Winner, cells, read_winners, repeats, with_hparams, write_winners
from dg_batchformer.spec.manifest import SweepManifest, SweepRun, read_sweep_manifest, run_entries
from dg_batchformer.storage.folders import State, SweepFolder

_SHOWN = 8


class _Tried(NamedTuple):
    """A run of a search: its hparams, and its validation accuracy in [0, 1]; None if a race stopped it."""

    run: SweepRun
    hparams: Mapping[str, Any]
    validation: float | None


def declare_winners(folder: SweepFolder) -> list[SweepRun]:
    """Choose the winners of a finished search, and add their runs to ``sweep.json``; return these.

    Both files are written atomically and depend only on the records, so that an interrupted call can be repeated, and
    several can run at the same time. Returns [] while runs of the search are left to train. Failed runs are left out;
    raises InputError if a row has no others.
    """
    manifest = read_sweep_manifest(folder)
    if manifest.search is None:
        return []
    searched = [run for run in manifest.runs if run.searches]
    asked = manifest.search
    further = repeats(searched, read_winners(folder), asked.repeat, asked.selection)
    if not further:
        found = _collected(folder, manifest)
        if any(not found[run.spec.id].state.is_settled for run in searched):
            return []
        winners = choose_winners(searched, found, METHODS[asked.selection])
        write_winners(folder, winners)
        further = repeats(searched, winners, asked.repeat, asked.selection)
    folder.write({**folder.read(), "runs": run_entries([*searched, *further])})
    return further


def choose_winners(
    searched: Sequence[SweepRun], found: Mapping[str, CollectedRun], method: Method, source: str = ""
) -> list[Winner]:
    """Choose the best hparams of every row and its test environments by their mean validation over trials.

    Test environments never share a choice, as the validation of one includes images of the others. Ties go to the
    largest hparams seed and the first grid point, as in tables. Raises InputError for a row without results.

    Args:
        searched: the runs of the search.
        found: these with their records, by run id.
        method: by which to validate.
        source: folder of the sweep, if it is another one.

    """
    return [_winner(runs, found, method, source) for runs in cells(searched).values()]


def _winner(runs: Sequence[SweepRun], found: Mapping[str, CollectedRun], method: Method, source: str) -> Winner:
    """Choose among the runs of one row and its test environments."""
    tried = [one for run in runs if (one := _tried(run, found[run.spec.id], method)) is not None]
    place = runs[0].where
    names = differing([one.hparams for one in tried])
    by_values: dict[str, list[_Tried]] = {}
    for one in sorted(tried, key=lambda one: -one.run.spec.hparams_seed):
        by_values.setdefault(json.dumps([one.hparams.get(name) for name in names]), []).append(one)
    means = {key: mean for key, of_values in by_values.items() if (mean := _mean(of_values)) is not None}
    if not means:
        raise InputError(
            f"no run of {runs[0].label} on {place} has a result to choose hparams by; see their states with status, "
            "and train them again with --retry failed"
        )
    best = max(means, key=lambda key: nan_lowest(means[key]))
    first = by_values[best][0]
    return Winner(
        row=first.run.label,
        place=place,
        run=first.run.spec.id,
        runs=[run.spec.id for run in runs],
        selection=method.name,
        trials=sorted({run.spec.trial_seed for run in runs}),
        tried=len(by_values),
        failed=len(runs) - len(tried),
        validation=means[best],
        hparams={name: first.hparams[name] for name in _chosen(first, runs, found) if name in first.hparams},
        edges=edges(first.hparams, [one.hparams for one in tried], names),
        source=source,
        stopped=sum(one.validation is None for one in tried),
    )


def _chosen(winner: _Tried, runs: Sequence[SweepRun], found: Mapping[str, CollectedRun]) -> list[str]:
    """Return the names of the hparams that make a winner: also those that no other run with a result has otherwise.

    Those of its grid, and those that draws changed. The latter are known from the default draw; without it, all are
    taken.
    """
    recorded = [(run.spec.hparams_seed, found[run.spec.id].constant.get("hparams")) for run in runs]
    known = [(seed, hparams) for seed, hparams in recorded if isinstance(hparams, Mapping)]
    if winner.run.spec.hparams_seed != 0 and 0 not in {seed for seed, _ in known}:
        return sorted(winner.hparams)
    return sorted({*differing([hparams for _, hparams in known]), *winner.run.varied})


def _mean(tried: Sequence[_Tried]) -> float | None:
    """Return the mean validation of a candidate over its trials; None if a race stopped it on one of them."""
    validations = [one.validation for one in tried if one.validation is not None]
    return fmean(validations) if len(validations) == len(tried) else None


def _tried(run: SweepRun, found: CollectedRun, method: Method) -> _Tried | None:
    """Return the validation of a run, averaged over its test environments; None if it failed."""
    hparams, num_envs = found.constant.get("hparams"), len(run.spec.facts.names)
    if found.state is State.OUTRACED and isinstance(hparams, Mapping):
        return _Tried(run, hparams, None)
    scores = [method.select([found], env, num_envs) for env in found.reported] if found.state.is_final else []
    validations = [score.validation for score in scores if score is not None]
    if not validations or not isinstance(hparams, Mapping):
        return None
    return _Tried(run, hparams, fmean(validations))


def _collected(folder: SweepFolder, manifest: SweepManifest) -> dict[str, CollectedRun]:
    """Return the runs of a sweep with their records, by id."""
    collected = read_our_sweep(folder).runs[: len(manifest.runs)]  # soups follow
    return {asked.spec.id: found for asked, found in zip(manifest.runs, collected, strict=True)}


def _winners_of(path: Path) -> list[Winner]:
    """Return the winners of another sweep; raise InputError if it has not finished, or tries nothing.

    A sweep without a search is one: its draws or grid points, on all of its trials, by training-domain selection.
    """
    folder = SweepFolder(path)
    manifest = read_sweep_manifest(folder)
    if any(run.winner for run in manifest.runs):  # its choice stands, whatever was retrained since
        return [replace(winner, source=str(path)) for winner in read_winners(folder)]
    searched = [run for run in manifest.runs if run.searches] or list(manifest.runs)
    name = "training-domain" if manifest.search is None else manifest.search.selection
    found = _collected(folder, manifest)
    left = sum(not found[run.spec.id].state.is_settled for run in searched)
    if left:
        raise InputError(
            f"hparams_from: {left} of {len(searched)} runs of {path} are unfinished; train them: {manifest.command()}"
        )
    winners = choose_winners(searched, found, METHODS[name], str(path))
    if not any(winner.hparams for winner in winners):
        raise InputError(f"hparams_from: {path} tries no hparams; name a sweep with a search, draws or a grid")
    return winners


def with_hparams_from(path: Path, folder: SweepFolder, runs: Sequence[SweepRun]) -> tuple[list[SweepRun], list[Winner]]:
    """Return runs with the hparams that another sweep chose for the same row, dataset and environments, and its choice.

    Raises InputError for a row that the other sweep does not have.

    Args:
        path: folder of the other sweep.
        folder: of this sweep, whose earlier choice stays.
        runs: of this sweep.

    """
    chosen = {(winner.row, winner.place): winner for winner in read_winners(folder) if winner.source == str(path)}
    if not all((run.label, run.where) in chosen for run in runs):
        chosen = {(winner.row, winner.place): winner for winner in _winners_of(path)}
    for run in runs:
        if (run.label, run.where) not in chosen:
            raise InputError(
                f"hparams_from: {path} has no row labelled {run.label!r} on {run.where} to take hparams from; it "
                "has " + ", ".join(f"{row} on {place}" for row, place in list(chosen)[:_SHOWN])
            )
    kept = {(run.label, run.where): chosen[run.label, run.where] for run in runs}
    return [with_hparams(run, kept[run.label, run.where], run.spec.trial_seed) for run in runs], list(kept.values())
