"""The dry run: prints the command of every run that is due, and starts nothing."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from dg_batchformer.spec import RunSpec
from dg_batchformer.store import SweepFolder
from dg_batchformer.sweep.expand import SweepRun


def commands(folder: SweepFolder, runs: Sequence[SweepRun], data_dir: Path | None) -> list[str]:
    """Return one ``train`` command per run; each alone gives what the sweep would."""
    return [shlex.join(_command(folder, run.spec, data_dir)) for run in runs]


def _command(folder: SweepFolder, spec: RunSpec, data_dir: Path | None) -> list[str]:
    words = ["python", "-m", "dg_batchformer", "train"]
    for name, value in spec.as_dict().items():
        if name == "hparams":
            words += ["--hparams", json.dumps(value)] if value else []
        elif name == "test_envs":
            words += ["--test_envs", *map(str, value)]
        else:
            words += [f"--{name}", str(value)]
    if data_dir is not None:
        words += ["--data_dir", str(data_dir)]
    return [*words, "--keep", "none", "--output_dir", str(folder.run(spec.id).path)]
