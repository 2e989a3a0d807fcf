"""GSAM — Zhuang et al., 2022: minimize the perturbed loss, and its gap to the loss."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dg_batchformer.algorithms.sam import SAM
from dg_batchformer.hparams import HParam


class GSAM(SAM):
    """Surrogate gap guided SAM: SAM, plus a descent of the surrogate gap that leaves the perturbed loss alone.

    With g the gradient at the weights (parameters,), p the gradient at the perturbed weights, and g' the part of g that
    is orthogonal to p, the step is along ``p - alpha g'``: to first order, it lowers the gap between the two losses
    without a change of the perturbed one. ``rho`` is constant; the paper lets it follow the learning rate.
    """

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        return {
            **super().search_space(dataset),
            "alpha": HParam(0.01, lambda rng: rng.choice([0.01, 0.1, 0.2, 0.4]), "weight of the surrogate gap", low=0),
        }

    def direction(self, gradient: list[Tensor], perturbed: list[Tensor]) -> list[Tensor]:
        along = _product(gradient, perturbed) / (_product(perturbed, perturbed) + 1e-12)
        alpha = self.hparams["alpha"]
        return [p - alpha * (g - along * p) for g, p in zip(gradient, perturbed, strict=True)]


def _product(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    return torch.stack([(one * other).sum() for one, other in zip(a, b, strict=True)]).sum()
