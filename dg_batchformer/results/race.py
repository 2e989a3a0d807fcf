"""Where a run stands in its race, by the records of the runs that it races against."""

from collections.abc import Sequence
from contextlib import suppress
from math import nan

import numpy as np

from dg_batchformer.results.evaluations import Evaluations
from dg_batchformer.results.runs import parse_records
from dg_batchformer.results.selection import validation_accuracy
from dg_batchformer.spec.race import Bracket, Standing, standing
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.storage.folders import RunFolder
from dg_batchformer.storage.safe_read import TABLE, read_bytes


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
