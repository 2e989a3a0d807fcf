"""The winners of a search, written to ``winners.json`` in the folder of its sweep."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from dg_batchformer.errors import MALFORMED, InputError
from dg_batchformer.spec.manifest import SweepRun
from dg_batchformer.spec.run import RunRequest
from dg_batchformer.storage.folders import SweepFolder, write_json
from dg_batchformer.storage.safe_read import TABLE, read_text
from dg_batchformer.text.printable import one_line


@dataclass(frozen=True)
class Winner:
    """The hparams that a search chose for a row and its test environments.

    Args:
        row: label.
        place: dataset and environments, in words.
        run: id of the run that won.
        runs: ids of all runs of the search.
        selection: name of the selection method that chose.
        trials: trial seeds on which the search tried hparams.
        tried: number of candidates, without those that failed.
        failed: number of runs without one, besides those that a race stopped.
        validation: accuracy in [0, 1] by which it won, the mean over its trials.
        hparams: its values of the hparams that differ between candidates.
        edges: names of these whose value is the ``smallest`` or ``largest`` of those tried.
        source: folder of the sweep that searched, '' for its own.
        stopped: number of runs that a race stopped.

    """

    row: str
    place: str
    run: str
    runs: Sequence[str]
    selection: str
    trials: Sequence[int]
    tried: int
    failed: int
    validation: float
    hparams: Mapping[str, Any]
    edges: Mapping[str, str]
    source: str = ""
    stopped: int = 0


def write_winners(folder: SweepFolder, winners: Sequence[Winner]) -> None:
    """Write ``winners.json`` atomically; raise InputError if the folder is not writable."""
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        write_json(folder.winners_file, [asdict(winner) for winner in winners])
    except OSError as error:
        raise InputError(f"cannot write {folder.winners_file}: {error.strerror}") from None


def read_winners(folder: SweepFolder) -> list[Winner]:
    """Return the winners of a sweep, [] before they are chosen; raise InputError if the file is malformed."""
    try:
        if folder.is_packed:
            content = folder.read().get("winners", [])
        elif folder.winners_file.exists():
            content = json.loads(read_text(folder.winners_file, TABLE))
        else:
            return []
        return [_checked(Winner(**one)) for one in content]
    except (OSError, *MALFORMED) as error:
        raise InputError(f"{folder.winners_file} cannot be read: {error}; delete it to choose again") from None


def _checked(winner: Winner) -> Winner:
    """Return a winner with texts of one line and numbers; raise TypeError or ValueError if it has others."""
    texts = (
        winner.row,
        winner.place,
        winner.run,
        winner.selection,
        winner.source,
        *winner.runs,
        *winner.edges.values(),
    )
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a text is missing")
    return replace(
        winner,
        place=one_line(winner.place),
        selection=one_line(winner.selection),
        source=one_line(winner.source),
        trials=[int(trial) for trial in winner.trials],
        tried=int(winner.tried),
        failed=int(winner.failed),
        stopped=int(winner.stopped),
        hparams=dict(winner.hparams),
        edges={one_line(name): one_line(edge) for name, edge in winner.edges.items()},
    )


def cells(runs: Sequence[SweepRun]) -> dict[tuple[object, ...], list[SweepRun]]:
    """Group the runs of a search by row, dataset and environments: those among which one wins."""
    found: dict[tuple[object, ...], list[SweepRun]] = {}
    for run in runs:
        found.setdefault(run.cell, []).append(run)
    return found


def repeats(
    searched: Sequence[SweepRun], winners: Sequence[Winner], trials: Sequence[int], selection: str
) -> list[SweepRun]:
    """Return the runs of the winners on further trials; [] unless all are chosen by this search and selection."""
    chosen = {(winner.row, tuple(winner.runs)): winner for winner in winners if winner.selection == selection}
    pairs = [
        (runs[0], chosen.get((runs[0].label, tuple(run.spec.id for run in runs)))) for runs in cells(searched).values()
    ]
    known = [(run, winner) for run, winner in pairs if winner is not None]
    if len(known) < len(pairs):
        return []
    return [with_hparams(run, winner, trial) for trial in trials for run, winner in known]


def with_hparams(run: SweepRun, winner: Winner, trial: int) -> SweepRun:
    """Return a run on a trial with the hparams of a winner; those that its sweep file sets stay."""
    given = {name: value for name, value in run.spec.hparams.items() if name not in run.varied}
    asked = {"trial_seed": trial, "hparams_seed": 0, "seed": None, "hparams": {**winner.hparams, **given}}
    spec = RunRequest(**{**run.spec.as_dict(), **asked}).resolve()
    varied = tuple(name for name in winner.hparams if name not in given)
    return SweepRun(run.label, spec, varied, winner=winner.run)
