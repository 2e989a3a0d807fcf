"""The dry run: one command for every run that is due; starts nothing, and looks for no data, weights or lock.

A command says what is trained, not where: give it a ``--device``, or it takes the first GPU, else the CPU. Where the
sweep's workers are on CPUs it has their number of threads, on which the last digits of sums depend.
"""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from dg_batchformer.declaration import SweepRun
from dg_batchformer.spec import RunSpec
from dg_batchformer.store import SweepFolder


def commands(
    folder: SweepFolder,
    runs: Sequence[SweepRun],
    data_dir: Path | None,
    keep: str,
    predictions: bool,
    threads: int | None = None,
) -> list[str]:
    """Return one ``train`` command for each run: what a worker of the local launcher would be told."""
    kept = ["--keep", keep, *["--predictions"] * predictions]
    kept += [] if threads is None else ["--threads", str(threads)]
    return [shlex.join([*_command(folder, run.spec, data_dir), *kept]) for run in runs]


def _command(folder: SweepFolder, spec: RunSpec, data_dir: Path | None) -> list[str]:
    words = ["python", "-m", "dg_batchformer", "train"]
    for name, value in spec.as_dict().items():
        if name == "hparams":
            words += _option(name, json.dumps(value)) if value else []
        elif name == "environments":
            continue  # found again where the data lies
        elif name in ("test_envs", "train_envs"):
            words += _option(name, *map(spec.facts.typed, value))
        elif isinstance(value, list):
            words += _option(name, *value) if value else []
        else:
            words += _option(name, str(value))
    if data_dir is not None:
        words += _option("data_dir", str(data_dir))
    return [*words, *_option("output_dir", str(folder.run(spec.id).path))]


def _option(name: str, *values: str) -> list[str]:
    """Return an option with its values; a value that begins with a dash is joined to it, or would be an option."""
    if len(values) == 1 and values[0].startswith("-"):
        return [f"--{name}={values[0]}"]
    return [f"--{name}", *values]
