"""Made-up sweeps whose records have the fields of real ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dg_batchformer.catalog.datasets import dataset_facts
from dg_batchformer.spec.manifest import SweepRun, manifest_content
from dg_batchformer.spec.sweep import SweepSpec
from dg_batchformer.storage.digests import mark_done
from dg_batchformer.storage.folders import SweepFolder
from dg_batchformer.storage.records import to_line
from dg_batchformer.sweep.expand import expand

VERSIONS = {"dg_batchformer": "0.1.0", "torch": "2.11.0"}


def write_sweep(
    path: Path,
    sweep: SweepSpec,
    accuracy: Callable[[SweepRun], float],
    *,
    hparams: dict[str, Any],
    keep: Callable[[SweepRun], bool] = lambda run: True,
    threads: Callable[[SweepRun], int] = lambda run: 1,
) -> SweepFolder:
    """Write a sweep of finished runs with given test accuracies in [0, 1]; ``keep`` leaves some runs missing."""
    runs = expand(sweep)
    folder = SweepFolder(path)
    folder.write(manifest_content(sweep, runs))
    for run in filter(keep, runs):
        files = folder.run(run.spec.id)
        files.path.mkdir(parents=True)
        environments = range(len(dataset_facts(run.spec.dataset).names))
        values = {f"env{env}_{split}_acc": 0.9 for env in environments for split in ("in", "out")}
        values |= {f"env{env}_in_acc": accuracy(run) for env in run.spec.test_envs}
        constant = {"args": {}, "hparams": hparams, "protocol": run.spec.protocol, "precision": "bf16"}
        made = {"versions": VERSIONS, "device": "cpu", "dataset_fingerprint": "f00d", "threads": threads(run)}
        final = "SWAD" in run.spec.algorithm
        files.records_file.write_text(to_line({**values, **constant, **made, "step": 300, "final": final}))
        mark_done(files, {"outcome": "done"})
    return folder
