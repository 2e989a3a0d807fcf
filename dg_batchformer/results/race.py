"""Where a run stands in its race, by the records of the runs that it races against."""

from collections.abc import Sequence
from contextlib import suppress
from math import nan
from typing import NamedTuple

import numpy as np

from dg_batchformer.results.evaluations import Evaluations
from dg_batchformer.results.runs import parse_records
from dg_batchformer.results.selection import nan_lowest, validation_accuracy
from dg_batchformer.spec.race import Bracket, Race
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.storage.folders import RunFolder
from dg_batchformer.storage.safe_read import TABLE, read_bytes


class Standing(NamedTuple):
    """The place of a run among the runs that have reached a rung.

    Args:
        step: the rung.
        rank: 1 for the best; equal validation gives equal ranks.
        of: number of runs that have reached the rung, with this one.
        validation: best accuracy up to the rung, in [0, 1].
        continues: whether the run is among those that continue.

    """

    step: int
    rank: int
    of: int
    validation: float
    continues: bool


def standing(race: Race, step: int, validation: float, others: Sequence[float]) -> Standing:
    """Compare the validation of a run at a rung with those of the other runs that have reached it."""
    better = sum(nan_lowest(other) > nan_lowest(validation) for other in others)
    of = len(others) + 1
    kept = max(1, int(race.keep * of + 1e-9))  # 0.29 * 100 is 28.999999999999996
    return Standing(step, better + 1, of, validation, better < kept)


def standing_at(step: int, spec: RunSpec, folder: RunFolder, bracket: Bracket) -> Standing:
    """Compare a run with the others of its bracket that have a record of a rung on disk.

    Only files are read, so runs of other processes and machines count. Of two runs that arrive together, at least one
    counts the other, as every run writes its own record before it reads.

    Args:
        step: the rung; the run has written its record.
        spec, folder: of the run; the folders of the others lie beside.
        bracket: of the run.

    """
    reached = {
        run_id: validation
        for run_id in bracket.runs
        if (validation := _at_rung(RunFolder(folder.path.parent / run_id), step, spec.train_envs)) is not None
    }
    mine = reached.pop(spec.id, nan)
    return standing(bracket.race, step, mine, list(reached.values()))


def _at_rung(folder: RunFolder, step: int, train_envs: Sequence[int]) -> float | None:
    with suppress(OSError):
        runs = parse_records(read_bytes(folder.records_file, TABLE)).runs
        return best_validation(runs[-1].evaluations, train_envs, step) if runs else None
    return None


def best_validation(evaluations: Evaluations, train_envs: Sequence[int], step: int) -> float | None:
    """Return the best validation accuracy of a run up to a rung; None if it has not reached the rung.

    It is the best and not the last one, as selection will choose the best step too; NaN if all are NaN.
    """
    if step not in evaluations.steps:
        return None
    values, known = validation_accuracy(evaluations, train_envs)
    reached = values[known & (evaluations.steps <= step) & ~np.isnan(values)]
    return float(reached.max()) if len(reached) else nan
