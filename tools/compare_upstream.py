#!/usr/bin/env python3
"""Compare every algorithm with DomainBed's own code: tools/compare_upstream.py DOMAINBED_DIR [--record FILE]

DOMAINBED_DIR is a checkout of facebookresearch/DomainBed. For each of its algorithms: are the hparams equal, default
and drawn, on all datasets; are six updates equal, from equal weights on equal data; if not, which difference is
documented.
--record writes upstream's metrics to FILE, which the tests hold ours against. Exit status 1 if something differs that
no docstring names. Needs what DomainBed imports: timm, and backpack-for-pytorch for Fishr.
"""

import argparse
import json
import re
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dg_batchformer.algorithms import ALGORITHMS, get_algorithm_class
from dg_batchformer.catalog import ALGORITHM_ORDER
from dg_batchformer.hparams_registry import default_hparams, random_hparams
from dg_batchformer.seeds import seed_hash

SHAPE, CLASSES, DOMAINS, ROWS, UPDATES = (1, 28, 28), 10, 3, 12, 6
DATASETS = ("PACS", "OfficeHome", "TerraIncognita", "VLCS", "DomainNet", "SVIRO", "RotatedMNIST", "ColoredMNIST")
# Small numbers, so that six updates cross every step at which something changes.
SOON: dict[str, Any] = {
    "irm_penalty_anneal_iters": 3, "vrex_penalty_anneal_iters": 3, "ib_penalty_anneal_iters": 4, "eqrm_burnin_iters": 3,
    "penalty_anneal_iters": 3, "rdm_penalty_anneal_iters": 3, "iters": 3, "linear_steps": 2, "grad_penalty": 0.5,
    "weight_decay": 1e-3, "lr": 1e-3, "eqrm_lr": 1e-3, "rdm_lr": 1e-3, "tau": 0.6, "d_steps_per_g": 2,
}  # fmt: skip
PARTS = (
    ("featurizer", "network_f", "featurizer_label"), ("featurizer_domain",),
    ("classifier", "network_c", "classifier_label_1"),
    ("classifier_difference", "classifier_label_2"), ("classifier_domain",), ("style_classifier", "network_s"),
    ("discriminator",), ("class_embeddings",), ("adv_classifier",), ("projection", "cdpl"), ("context_net",),
    ("network_sma",), ("clist", "heads"),
)  # fmt: skip


def fill(algorithm: nn.Module) -> None:
    """Set all weights by a formula, equal for modules whose parameters come in the same order."""
    found = False
    for number, names in enumerate(PARTS):
        part = next((getattr(algorithm, name) for name in names if hasattr(algorithm, name)), None)
        for index, parameter in enumerate(_parameters(part)):
            found = True
            _fill(parameter, 1000 * number + index)
    if not found:  # Fish has only a network
        for index, parameter in enumerate(_parameters(algorithm.network)):
            _fill(parameter, index if index < 16 else 2000 + index - 16)


def _parameters(part: Any) -> Iterable[Tensor]:
    if part is None:
        return []
    modules = part if isinstance(part, list) else [part]
    return [parameter for module in modules for parameter in module.parameters()]


@torch.no_grad()
def _fill(parameter: Tensor, seed: int) -> None:
    noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
    fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
    parameter.copy_(noise / fan_in**0.5 if parameter.ndim > 1 else 0.3 * noise)


def trajectory(algorithm: nn.Module) -> list[dict[str, float]]:
    """Return the metrics of six updates on generated images, in double precision; draws are seeded by the step."""
    algorithm.double()  # or Adam turns the rounding of small gradients into steps of full size
    algorithm.train()
    history = []
    for step in range(UPDATES):
        generator = torch.Generator().manual_seed(step)
        minibatches = []
        for _ in range(DOMAINS):
            y = torch.cat([torch.arange(CLASSES), torch.randint(CLASSES, (ROWS - CLASSES,), generator=generator)])
            minibatches.append((_images(y, generator), y))
        torch.manual_seed(step)
        np.random.seed(step)
        metrics = algorithm.update(minibatches)
        history.append({name: float(value) for name, value in metrics.items()})
    return history


def _images(y: Tensor, generator: torch.Generator) -> Tensor:
    """Draw images whose classes look different: coarse patterns with a little noise, (N,) -> (N, 1, 28, 28)."""
    patterns = 3 * torch.randn(CLASSES, 1, 4, 4, generator=torch.Generator().manual_seed(7))
    coarse = patterns[y] + torch.randn(len(y), 1, 4, 4, generator=generator)
    return coarse.repeat_interleave(7, dim=2).repeat_interleave(7, dim=3).double()


def ours(name: str) -> list[dict[str, float]]:
    """Return our trajectory of an algorithm."""
    hparams = default_hparams(name, "RotatedMNIST", protocol="domainbed-2024")
    hparams.update({key: value for key, value in SOON.items() if key in hparams})
    algorithm = get_algorithm_class(name)(SHAPE, CLASSES, DOMAINS, hparams)
    fill(algorithm)
    if name == "ERMPlusPlus":
        algorithm.average_from = 4
    return trajectory(algorithm)


def upstreams(name: str, domainbed: Any) -> list[dict[str, float]]:
    """Return DomainBed's trajectory of an algorithm."""
    hparams = domainbed.hparams_registry.default_hparams(name, "RotatedMNIST")
    hparams.update({key: value for key, value in SOON.items() if key in hparams})
    algorithm = domainbed.algorithms.get_algorithm_class(name)(SHAPE, CLASSES, DOMAINS, hparams)
    fill(algorithm)
    if name == "ERMPlusPlus":
        algorithm.sma_start_iter = 4
    return trajectory(algorithm)


def hparams_differ(name: str, domainbed: Any) -> list[str]:
    """Return where hparams differ, as 'dataset seed: hparam'; names of ours that DomainBed lacks do not count."""
    differing = []
    for dataset in DATASETS:
        for seed in (None, *(seed_hash(draw, trial) for draw in (1, 7, 19) for trial in range(2))):
            registry = domainbed.hparams_registry
            if seed is None:
                theirs, mine = (
                    registry.default_hparams(name, dataset),
                    default_hparams(name, dataset, protocol="domainbed-2024"),
                )
            else:
                theirs = registry.random_hparams(name, dataset, seed)
                mine = random_hparams(name, dataset, seed, protocol="domainbed-2024")
            differing += [f"{dataset} {seed}: {key}" for key, value in theirs.items() if mine.get(key) != value]
    return differing


def relative_difference(mine: list[dict[str, float]], theirs: list[dict[str, float]]) -> float:
    """Return the largest relative difference; infinite where metric names differ."""
    worst = 0.0
    for a, b in zip(mine, theirs, strict=True):
        if set(a) != set(b):
            return float("inf")
        worst = max([worst, *(abs(a[key] - b[key]) / max(abs(b[key]), 1e-3) for key in a)])
    return worst


def documented(name: str) -> str:
    """Return what the docstring says of differences, '' if nothing."""
    match = re.search(r"Differs from DomainBed: (.*?)(?:\n\n|\Z)", ALGORITHMS[name].__doc__ or "", re.DOTALL)
    return " ".join(match[1].split()) if match else ""


def main() -> int:
    """Compare, print a line per algorithm, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("domainbed", type=Path)
    parser.add_argument("--record", type=Path, metavar="FILE")
    options = parser.parse_args()
    sys.path.insert(0, str(options.domainbed))
    warnings.filterwarnings("ignore")
    import domainbed.algorithms
    import domainbed.hparams_registry

    torch.set_num_threads(1)
    recorded, failures = {}, 0
    for name in ALGORITHM_ORDER:
        hparams = hparams_differ(name, domainbed)
        try:
            recorded[name] = upstreams(name, domainbed)
            difference = relative_difference(ours(name), recorded[name])
            verdict = "equal" if difference < 1e-3 else f"differs ({difference:.1e})"
        except Exception as error:  # some of upstream's need a GPU, or do not run at all
            verdict = f"not comparable: upstream {type(error).__name__}: {str(error)[:60]}"
        reason = documented(name)
        failed = bool(hparams) or (verdict != "equal" and not reason)
        failures += failed
        print(f"{name:14} hparams {'equal' if not hparams else hparams[:3]}; six updates: {verdict}")
        if verdict != "equal" and reason:
            print(f"{'':14} documented: {reason}")
    if options.record:
        options.record.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
