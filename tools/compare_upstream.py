#!/usr/bin/env python3
"""Compare every algorithm with DomainBed's own code: tools/compare_upstream.py DOMAINBED_DIR [--record FILE]

DOMAINBED_DIR is a checkout of facebookresearch/DomainBed. For each of its algorithms: are the hparams equal, default
and drawn, on all datasets; are six updates equal, from equal weights on equal data; if not, which difference is
documented.
--record writes upstream's metrics of those that are equal to FILE, as tests/data/upstream_trajectories.json has them.
Exit status 1 if something differs that no docstring names. Needs what DomainBed imports: timm, and
backpack-for-pytorch for Fishr.
"""

import argparse
import json
import re
import sys
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dg_batchformer.algorithms import ALGORITHMS
from dg_batchformer.catalog.datasets import DOMAINBED_ORDER
from dg_batchformer.hparams_registry import default_hparams, random_hparams
from dg_batchformer.seeds import seed_hash

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from trajectories import DATASET, REPORTED_OTHERWISE, Trajectory, differences, ours, trajectory

DATASETS = ("PACS", "OfficeHome", "TerraIncognita", "VLCS", "DomainNet", "SVIRO", "RotatedMNIST", "ColoredMNIST")
SEEDS = (None, *(seed_hash(draw, trial) for draw in (1, 7, 19) for trial in range(2)))  # None: the defaults


def import_domainbed(checkout: Path) -> Any:
    """Import DomainBed, and patch its CUDA calls so that TRM, RDM and Fishr run on a CPU."""
    sys.path.insert(0, str(checkout))
    warnings.filterwarnings("ignore")
    torch.Tensor.cuda = nn.Module.cuda = lambda self, *_: self
    backward = torch.Tensor.backward
    # BackPACK's hooks run no more where ``inputs`` are named; Fishr throws all other gradients away anyhow.
    torch.Tensor.backward = lambda self, *given, inputs=None, **options: backward(self, *given, **options)
    import domainbed.algorithms
    import domainbed.hparams_registry

    return domainbed


def upstreams(name: str, domainbed: Any) -> Trajectory:
    """Return DomainBed's trajectory of an algorithm."""
    hparams = domainbed.hparams_registry.default_hparams(name, DATASET)
    with redirect_stdout(None):  # URM talks
        return trajectory(domainbed.algorithms.get_algorithm_class(name), hparams)


def hparams_that_differ(name: str, registry: Any) -> list[str]:
    """Return where hparams differ, as 'dataset seed: hparam'; names of ours that DomainBed lacks do not count."""
    differing = []
    for dataset in DATASETS:
        for seed in SEEDS:
            if seed is None:
                theirs = registry.default_hparams(name, dataset)
                mine = default_hparams(name, dataset, protocol="domainbed-2024")
            else:
                theirs = registry.random_hparams(name, dataset, seed)
                mine = random_hparams(name, dataset, seed, protocol="domainbed-2024")
            differing += [f"{dataset} {seed}: {key}" for key, value in theirs.items() if mine.get(key) != value]
    return differing


def documented(name: str) -> str:
    """Return the documented differences of an algorithm, or ''."""
    match = re.search(r"Differs from DomainBed: (.*?)(?:\n\n|\Z)", ALGORITHMS[name].__doc__ or "", re.DOTALL)
    return " ".join(match[1].split()) if match else ""


def rounded(history: Trajectory) -> Trajectory:
    return [{key: float(f"{value:.7g}") for key, value in metrics.items()} for metrics in history]


def main() -> int:
    """Compare, print a line per algorithm, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("domainbed", type=Path)
    parser.add_argument("--record", type=Path, metavar="FILE")
    options = parser.parse_args()
    domainbed = import_domainbed(options.domainbed)
    torch.set_num_threads(1)
    recorded: dict[str, Trajectory] = {}
    failures = 0
    for name in DOMAINBED_ORDER:
        hparams, reason = hparams_that_differ(name, domainbed.hparams_registry), documented(name)
        try:
            theirs = upstreams(name, domainbed)
            differing = differences(ours(name), theirs)
            verdict = ", ".join(f"{key} differs by {value:.1g}" for key, value in differing.items()) or "equal"
            if set(differing) <= REPORTED_OTHERWISE.get(name, set()):
                recorded[name] = rounded(theirs)
        except Exception as error:  # not runnable upstream
            verdict = f"upstream fails: {type(error).__name__}: {str(error).splitlines()[0][:80]}"
        failures += bool(hparams) or (verdict != "equal" and not reason)
        because = "" if verdict == "equal" else f"; documented: {reason or 'NOTHING'}"
        print(f"{name:14} hparams {hparams[:3] or 'equal'}; six updates: {verdict}{because}", flush=True)
    if options.record:
        lines = [f"{json.dumps(name)}: {json.dumps(recorded[name])}" for name in sorted(recorded)]
        options.record.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
