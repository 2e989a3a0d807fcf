#!/usr/bin/env python3
"""Replay a race from the records of a full search: tools/replay_race.py DIR --rungs 20 60 [--keep 0.5]

How often would racing have chosen the same draw, or one that tests within 0.3 points of it, and what share of the
device time would it have taken? The draws or grid points of every row, dataset, test environment and trial arrive one
after another, in many random orders. DIR holds a finished sweep that did not race, packed or with its run folders.
"""

import argparse
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from tabulate import tabulate

from dg_batchformer.results.collect import collect
from dg_batchformer.results.collection import CollectedRun, Collection
from dg_batchformer.results.race import best_validation, standing
from dg_batchformer.results.selection import METHODS, Score, nan_lowest
from dg_batchformer.spec.race import Race

NEAR = 0.003  # of test accuracy, in [0, 1]
BY = METHODS["training-domain"]


class Runner(NamedTuple):
    """A finished run: its best validation up to each rung, its seconds up to each rung and the end, and its score."""

    at_rung: Mapping[int, float]
    seconds: Mapping[int | None, float]
    draw: int
    score: Score


class Outcome(NamedTuple):
    """What a race in one order chose: whether the same draw, the difference of test accuracy, and its seconds."""

    same: bool
    difference: float
    seconds: float


def main() -> None:
    """Replay races, and print how they did by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of the sweep")
    parser.add_argument("--rungs", type=int, nargs="+", required=True, metavar="STEP", help="steps, as in a sweep file")
    parser.add_argument("--keep", type=float, default=Race.keep, help="share that continues (default: %(default)s)")
    parser.add_argument("--orders", type=int, default=200, metavar="N", help="random orders (default: %(default)s)")
    options = parser.parse_args()
    race = Race(tuple(sorted(options.rungs)), options.keep)
    by_row: dict[str, list[tuple[Outcome, float]]] = defaultdict(list)
    cells = runners(collect([options.folder]), race)
    if not cells:
        parser.error(f"{options.folder} has no draws or grid points that are done and were evaluated at every rung")
    rng = random.Random(0)
    for (label, *_), cell in cells.items():
        whole = sum(runner.seconds[None] for runner in cell)
        by_row[str(label)] += [(replay(race, rng.sample(cell, len(cell))), whole) for _ in range(options.orders)]
    by_row["all"] = [one for of_row in list(by_row.values()) for one in of_row]
    headers = ["row", "races", "same draw", f"or within {100 * NEAR:g} points", "test accuracy", "device time"]
    print(f"Races at {race.text}, in {options.orders} orders of the draws of each.")
    print(tabulate([_line(label, found) for label, found in by_row.items()], headers=headers, disable_numparse=True))


def runners(collection: Collection, race: Race) -> dict[tuple[object, ...], list[Runner]]:
    """Return the finished runs by row, dataset, test environments and trial; places with one run are left out."""
    cells: dict[tuple[object, ...], list[Runner]] = defaultdict(list)
    for run in collection.runs:
        if run.state.is_final and (runner := _runner(collection, run, race)) is not None:
            cells[run.label, run.benchmark, run.test_envs, run.trial_seed].append(runner)
    return {place: cell for place, cell in cells.items() if len(cell) > 1}


def _runner(collection: Collection, run: CollectedRun, race: Race) -> Runner | None:
    [env] = run.test_envs
    score = BY.select([run], env, len(collection.environments[run.benchmark]))
    found = {rung: best_validation(run.evaluations, run.validating(env), rung) for rung in race.rungs}
    at_rung = {rung: validation for rung, validation in found.items() if validation is not None}
    if score is None or len(at_rung) < len(found):
        return None
    whole, steps = run.ending.seconds or 1.0, int(run.evaluations.steps.max()) + 1
    seconds: dict[int | None, float] = {rung: whole * (rung + 1) / steps for rung in race.rungs}
    return Runner(at_rung, {**seconds, None: whole}, run.hparams_seed, score)


def replay(race: Race, runs: Sequence[Runner]) -> Outcome:
    """Let runs arrive in the given order, and compare the choice among those that finish with that among all."""
    reached: dict[int, list[float]] = {rung: [] for rung in race.rungs}
    finished, seconds = [], 0.0
    for run in runs:
        stopped = None
        for rung, validation in run.at_rung.items():
            place = standing(race, rung, validation, reached[rung])
            reached[rung].append(validation)
            if not place.continues:
                stopped = rung
                break
        seconds += run.seconds[stopped]
        if stopped is None:
            finished.append(run)
    chosen, best = _choice(finished), _choice(runs)
    return Outcome(chosen is best, chosen.score.test - best.score.test, seconds)


def _choice(runs: Sequence[Runner]) -> Runner:
    """Return the run that tables select; ties go to the largest hparams seed."""
    return max(runs, key=lambda run: (nan_lowest(run.score.validation), run.draw))


def _line(label: str, found: Sequence[tuple[Outcome, float]]) -> list[str | int]:
    """Return a line of the table."""
    outcomes = [outcome for outcome, _ in found]
    near = fmean(outcome.same or abs(outcome.difference) <= NEAR for outcome in outcomes)
    share = sum(outcome.seconds for outcome in outcomes) / sum(whole for _, whole in found)
    difference = 100 * fmean(outcome.difference for outcome in outcomes)
    same = fmean(outcome.same for outcome in outcomes)
    return [label, len(found), f"{same:.1%}", f"{near:.1%}", f"{difference:+.2f}", f"{share:.1%}"]


if __name__ == "__main__":
    main()
