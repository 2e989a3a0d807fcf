"""Six updates of an algorithm, ours or DomainBed's, from equal weights on equal inputs.

``tools/compare_upstream.py`` records DomainBed's, ``tests/algorithms/test_trajectories.py`` holds ours to the record.
Shared weights need parts of equal names (``featurizer``, ``classifier`` ...) with parameters in equal order.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dg_batchformer.algorithms import get_algorithm_class
from dg_batchformer.hparams_registry import default_hparams

SHAPE, CLASSES, DOMAINS, ROWS, UPDATES = (1, 28, 28), 4, 3, 5, 6  # at 28 px the network has no BatchNorm
DATASET = "RotatedMNIST"
CLOSE = 1e-3
# Small numbers, so that six updates cross every step at which something changes.
SOON: dict[str, Any] = {
    "irm_penalty_anneal_iters": 3, "vrex_penalty_anneal_iters": 3, "ib_penalty_anneal_iters": 4, "eqrm_burnin_iters": 3,
    "penalty_anneal_iters": 3, "rdm_penalty_anneal_iters": 3, "iters": 3, "linear_steps": 2, "grad_penalty": 0.5,
    "weight_decay": 1e-3, "lr": 1e-3, "eqrm_lr": 1e-3, "rdm_lr": 1e-3, "tau": 0.6, "d_steps_per_g": 2,
}  # fmt: skip
AVERAGE_FROM = 4  # ERM++: no hparam, here or upstream
# Names of parts, ours first.
PARTS = (
    ("featurizer", "network_f", "featurizer_label"), ("featurizer_domain",),
    ("classifier", "network_c", "classifier_label_1"),
    ("classifier_difference", "classifier_label_2"), ("classifier_domain",), ("style_classifier", "network_s"),
    ("discriminator",), ("class_embeddings",), ("adv_classifier",), ("projection", "cdpl"), ("context_net",),
    ("network_sma",), ("heads", "clist"),
)  # fmt: skip
# Metrics that are reported differently, as documented.
REPORTED_OTHERWISE = {
    "VREx": {"nll"}, "IB_ERM": {"nll"}, "IB_IRM": {"nll"}, "RDM": {"update_count", "rdm_lambda"},
}  # fmt: skip

Trajectory = list[dict[str, float]]


def ours(name: str) -> Trajectory:
    """Return our trajectory of an algorithm."""
    return trajectory(get_algorithm_class(name), default_hparams(name, DATASET, protocol="domainbed-2024"))


def trajectory(algorithm_class: Callable[..., nn.Module], hparams: dict[str, Any]) -> Trajectory:
    """Return the metrics of six updates on generated images, with random draws seeded by step."""
    hparams = {**hparams, **{name: value for name, value in SOON.items() if name in hparams}}
    with _double_precision():  # otherwise Adam turns rounding errors of small gradients into full steps
        algorithm = algorithm_class(SHAPE, CLASSES, DOMAINS, hparams)
        _fill_all(algorithm)
        for name in ("average_from", "sma_start_iter"):
            if hasattr(algorithm, name):
                setattr(algorithm, name, AVERAGE_FROM)
        algorithm.train()
        return [_update(algorithm, step) for step in range(UPDATES)]


def differences(mine: Trajectory, theirs: Trajectory) -> dict[str, float]:
    """Return the largest relative difference of every metric that is not close; inf if only one side has it."""
    worst: dict[str, float] = {}
    for a, b in zip(mine, theirs, strict=True):
        for name in a.keys() | b.keys():
            both = name in a and name in b
            difference = abs(a[name] - b[name]) / max(abs(b[name]), 1e-3) if both else float("inf")
            worst[name] = max(difference, worst.get(name, 0.0))
    return {name: difference for name, difference in sorted(worst.items()) if not difference < CLOSE}


def _update(algorithm: Any, step: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(step)
    minibatches = []
    for _ in range(DOMAINS):
        y = torch.cat([torch.arange(CLASSES), torch.randint(CLASSES, (ROWS - CLASSES,), generator=generator)])
        minibatches.append((_images(y, generator), y))
    torch.manual_seed(step)
    np.random.seed(step)
    return {name: float(value) for name, value in algorithm.update(minibatches).items()}


def _images(y: Tensor, generator: torch.Generator) -> Tensor:
    """Draw images with separable classes, coarse patterns plus noise: (N,) -> (N, 1, 28, 28)."""
    patterns = 3 * torch.randn(CLASSES, 1, 4, 4, generator=torch.Generator().manual_seed(7))
    coarse = patterns[y] + torch.randn(len(y), 1, 4, 4, generator=generator)
    return coarse.repeat_interleave(7, dim=2).repeat_interleave(7, dim=3)


def _fill_all(algorithm: Any) -> None:
    """Set all weights by a formula of their part and position."""
    found = False
    for number, names in enumerate(PARTS):
        part = next((getattr(algorithm, name) for name in names if hasattr(algorithm, name)), None)
        for index, parameter in enumerate(_parameters(part)):
            found = True
            _fill(parameter, 1000 * number + index)
    if not found:  # DomainBed's Fish has only a network: 16 featurizer parameters, then the classifier's
        for index, parameter in enumerate(algorithm.network.parameters()):
            _fill(parameter, index if index < 16 else 2000 + index - 16)


def _parameters(part: Any) -> Iterable[Tensor]:
    modules = part if isinstance(part, list) else [] if part is None else [part]
    return [parameter for module in modules for parameter in module.parameters()]


@torch.no_grad()
def _fill(parameter: Tensor, seed: int) -> None:
    noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
    fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
    parameter.copy_(noise / fan_in**0.5 if parameter.ndim > 1 else 0.3 * noise)


@contextmanager
def _double_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
