"""Dry run of a sweep: print one command for every due run, without checking data, weights or locks.

Commands have no ``--device``, so they use the first GPU, or else the CPU. If the sweep's workers use CPUs, commands
have their number of threads, as rounding depends on it.
"""

from collections.abc import Sequence

from dg_batchformer.spec.manifest import SweepRun
from dg_batchformer.spec.options import RunOptions
from dg_batchformer.storage.folders import SweepFolder
from dg_batchformer.text.command import command


def commands(
    folder: SweepFolder, runs: Sequence[SweepRun], options: RunOptions, threads: int | None = None
) -> list[str]:
    """Return one ``train`` command per run, equivalent to what a worker of the local launcher would do."""
    return [
        command(
            "train", **run.spec.options(), **options.typed(), output_dir=folder.run(run.spec.id).path, threads=threads
        )
        for run in runs
    ]
