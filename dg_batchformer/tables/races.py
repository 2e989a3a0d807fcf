"""Notes of tables on races: where draws were stopped, how many, and what it saved."""

from collections.abc import Sequence

from dg_batchformer.results.collection import CollectedRun, cost_of
from dg_batchformer.spec.race import Race
from dg_batchformer.storage.folders import State
from dg_batchformer.text.counts import how_many


def about_races(runs: Sequence[CollectedRun]) -> list[str]:
    """Return a note on every race that runs of one dataset are in."""
    by_race: dict[Race, list[CollectedRun]] = {}
    for run in runs:
        if run.race is not None:
            by_race.setdefault(run.race, []).append(run)
    every = len({run.label for run in runs})
    return [_note(race, raced, every) for race, raced in by_race.items()]


def _note(race: Race, runs: Sequence[CollectedRun], every: int) -> str:
    labels = list(dict.fromkeys(run.label for run in runs))
    rows = f"{', '.join(labels)}: raced" if len(labels) < every else "rows were raced"
    stopped = [run for run in runs if run.state is State.OUTRACED]
    spared = cost_of(stopped).spared_time
    saved = f"; this saved about {spared} of device time" if spared else ""
    of = how_many(len(runs), "run")
    return f"{rows} over draws, at {race.text}: {len(stopped)} of {of} stopped there, and are never selected{saved}"
