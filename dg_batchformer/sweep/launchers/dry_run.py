"""The dry run: one command for every run that is due; starts nothing, and looks for no data, weights or lock.

A command says what is trained, not where: give it a ``--device``, or it takes the first GPU, else the CPU. Where the
sweep's workers are on CPUs it has their number of threads, on which the last digits of sums depend.
"""

from collections.abc import Sequence

from dg_batchformer.spec.command import command
from dg_batchformer.spec.manifest import SweepRun
from dg_batchformer.spec.options import RunOptions
from dg_batchformer.storage.folders import SweepFolder


def commands(
    folder: SweepFolder, runs: Sequence[SweepRun], options: RunOptions, threads: int | None = None
) -> list[str]:
    """Return one ``train`` command for each run: what a worker of the local launcher would be told."""
    return [
        command("train", **spec.options(), **options.typed(), output_dir=folder.run(spec.id).path, threads=threads)
        for _, spec in runs
    ]
