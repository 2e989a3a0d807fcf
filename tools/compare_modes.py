#!/usr/bin/env python3
"""Compare the accuracy of fast modes with the reference mode: tools/compare_modes.py --data_dir DIR [--seeds 5]

Trains the same runs (seeds 0, 1, ... of splits, order, augmentation and initialisation) in the reference mode and in
the modes that --modes names, and prints, as Markdown, mean and standard error of validation and test accuracy, and of
the difference to the reference mode by seed. Accuracies are those of the last step, without selection.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dg_batchformer.spec.options import RunOptions
from dg_batchformer.spec.run import RunRequest
from dg_batchformer.storage.folders import RunFolder
from dg_batchformer.training.console import Console
from dg_batchformer.training.device import parse_device, prepare_device
from dg_batchformer.training.run import train_run

MODES = {
    "reference": {"precision": "fp32", "data_path": "exact", "compile": "off"},
    "cached fp32": {"precision": "fp32", "data_path": "cached", "compile": "off"},
    "cached bf16": {"precision": "bf16", "data_path": "cached", "compile": "off"},
}


class Accuracy(NamedTuple):
    """Final accuracies of a run in percent: on held-out splits of training environments, and on the test one."""

    validation: float
    test: float


def main() -> None:
    """Train all runs, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True, metavar="DIR")
    parser.add_argument("--dataset", default="PACS", metavar="NAME")
    parser.add_argument("--algorithm", default="ERM", metavar="NAME")
    parser.add_argument("--test_env", default="sketch", metavar="ENV")
    parser.add_argument("--protocol", default="quick", metavar="NAME")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="at least 2 (default: 5)")
    parser.add_argument("--modes", nargs="+", choices=list(MODES)[1:], default=list(MODES)[1:])
    parser.add_argument("--device", default="auto", metavar="NAME")
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error("--seeds: a spread needs at least 2")
    reference, rows = runs("reference", options), []
    for mode in ("reference", *options.modes):
        found = reference if mode == "reference" else runs(mode, options)
        cells = [mode]
        for part in Accuracy._fields:
            own, theirs = ([getattr(accuracy, part) for accuracy in each] for each in (found, reference))
            differences = [mine - other for mine, other in zip(own, theirs, strict=True)]
            cells += [mean_and_error(own), "" if mode == "reference" else mean_and_error(differences, "+")]
        rows.append(f"| {' | '.join(cells)} |")
    print("| mode | validation | difference | test | difference |", "|---|---|---|---|---|", *rows, sep="\n")


def runs(mode: str, options: argparse.Namespace) -> list[Accuracy]:
    """Train one run for each seed."""
    device = parse_device(options.device)
    prepare_device(device)
    found = []
    for seed in range(options.seeds):
        asked = {name: getattr(options, name) for name in ("dataset", "algorithm", "protocol")}
        spec = RunRequest(test_envs=(options.test_env,), trial_seed=seed, **asked, **MODES[mode]).resolve()
        with tempfile.TemporaryDirectory() as path:
            folder, watcher = RunFolder(Path(path)), _Bar()
            asked = RunOptions(options.data_dir)
            train_run(spec, folder, asked, device=device, watcher=watcher, stop=lambda: False)
            watcher.close()
            last = json.loads(folder.records_file.read_text().splitlines()[-1])
        held_out = [last[f"env{env}_out_acc"] for env in spec.train_envs]
        found.append(Accuracy(100 * statistics.fmean(held_out), 100 * last[f"env{spec.test_envs[0]}_in_acc"]))
    return found


class _Bar(Console):
    """The console of ``train`` without lines for evaluations."""

    def record(self, values: dict[str, object]) -> None: ...


def mean_and_error(values: Sequence[float], sign: str = "") -> str:
    """Return mean and standard error."""
    return f"{statistics.fmean(values):{sign}.1f} ± {statistics.stdev(values) / len(values) ** 0.5:.1f}"


if __name__ == "__main__":
    main()
