"""SAGM — Wang et al., 2023: minimize the loss, the perturbed loss, and the gap between them."""

import torch
from torch import Tensor

from dg_batchformer.algorithms.sam import SAM
from dg_batchformer.hparams import HParam


class SAGM(SAM):
    """Sharpness-aware gradient matching: SAM with gradients aligned at the original and the perturbed weights.

    With w the weights (parameters,), and g the gradient of the risk L there, the objective is
    ``L(w) + L(w + rho g / |g| - alpha g)``. Its second term decreases as the two gradients align. As in the authors'
    release, g is treated as constant there, and the step is along the mean of the two gradients.
    """

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        alpha = 5e-4 if dataset in ("OfficeHome", "DomainNet") else 1e-3
        return {
            **super().search_space(dataset),
            "alpha": HParam(
                alpha, lambda rng: rng.choice([5e-4, 1e-3]), "step size of the descent inside the perturbation", low=0
            ),
        }

    def ascent(self, norm: Tensor) -> Tensor:
        return super().ascent(norm) - self.hparams["alpha"]

    def direction(self, gradient: list[Tensor], perturbed: list[Tensor]) -> list[Tensor]:
        return list(torch._foreach_lerp(gradient, perturbed, 0.5))
