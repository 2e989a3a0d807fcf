"""MMD — Li et al., 2018: match feature distributions across domains by their maximum mean discrepancy."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dg_batchformer.algorithms.coral import CORAL

GAMMAS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)


def gaussian_kernel(a: Tensor, b: Tensor, gammas: Sequence[float] = GAMMAS) -> Tensor:
    """Compute the sum of Gaussian kernels of several widths: (n, d), (m, d) -> (n, m)."""
    products = torch.addmm(b.square().sum(dim=1), a, b.T, alpha=-2)  # upstream's order: rounding matters at 1000
    squares = (products + a.square().sum(dim=1, keepdim=True)).clamp_min(1e-30)
    return sum((squares.mul(-gamma).exp() for gamma in gammas), start=squares.new_zeros(()))


def mmd_distance(a: Tensor, b: Tensor, gammas: Sequence[float] = GAMMAS) -> Tensor:
    """Compute the squared maximum mean discrepancy: (n, d), (m, d) -> ()."""
    within = gaussian_kernel(a, a, gammas).mean() + gaussian_kernel(b, b, gammas).mean()
    return within - 2 * gaussian_kernel(a, b, gammas).mean()


class MMD(CORAL):
    """Maximum mean discrepancy: ERM plus the mean discrepancy between the features of pairs of environments.

    Discrepancies use plain features.

    Differs from DomainBed: one forward pass for all environments, which is equivalent unless BatchNorm is in training
    mode.
    """

    distance = staticmethod(mmd_distance)
