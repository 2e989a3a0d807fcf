"""SAM — Foret et al., 2021: seek weights whose whole neighbourhood has a low loss."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from dg_batchformer.algorithms.base import Metrics, Minibatches
from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.hparams import HParam
from dg_batchformer.networks.batch_norm import batch_norm_held
from dg_batchformer.networks.freezing import trainable


class SAM(ERM):
    """Sharpness-aware minimisation: the step is along the gradient where the loss nearby is largest.

    With w the weights, (parameters,), and g the gradient of the risk there, the step is along the gradient at
    ``w + rho g / |g|``, the norm over all weights, BatchFormer's included. Both passes draw the same dropout, so that
    they are of one function; live BatchNorm statistics are those of the first.
    """

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        return {"rho": HParam(0.05, lambda rng: rng.choice([0.01, 0.02, 0.05, 0.1]), "radius of the ascent", low=0)}

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        x = torch.cat([x for x, _ in minibatches])
        y = torch.cat([y for _, y in minibatches])
        weights = trainable(self.network)

        def risk_and_gradient() -> tuple[Tensor, list[Tensor]]:
            risk = self.risk(self.network(x), y, num_domains=len(minibatches))
            gradient = torch.autograd.grad(risk, weights, materialize_grads=True)
            return risk.detach(), list(gradient)

        with torch.random.fork_rng([x.device] if x.is_cuda else []):
            loss, replayed = risk_and_gradient()
            gradient = [part.clone() for part in replayed]  # a CUDA graph would overwrite it in the second pass
        with _moved(weights, gradient, self.ascent(_norm(gradient))), batch_norm_held(self.network):
            perturbed_loss, perturbed_gradient = risk_and_gradient()
        for parameter, direction in zip(weights, self.direction(gradient, perturbed_gradient), strict=True):
            parameter.grad = direction
        self.optimizer.step()
        return {"loss": loss, "perturbed_loss": perturbed_loss}

    def ascent(self, norm: Tensor) -> Tensor:
        """Return how far along the gradient, of this norm, the second gradient is taken."""
        return self.hparams["rho"] / (norm + 1e-12)

    def direction(self, gradient: list[Tensor], perturbed: list[Tensor]) -> list[Tensor]:
        """Return what the optimizer steps along, from the gradients at the weights and at the moved ones."""
        return perturbed


def _norm(gradient: Sequence[Tensor]) -> Tensor:
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(gradient))))


@contextmanager
def _moved(weights: Sequence[Tensor], gradient: Sequence[Tensor], distance: Tensor) -> Iterator[None]:
    """Hold weights some way along the gradient for a while, then exactly where they were."""
    with torch.no_grad():
        present = [weight.clone() for weight in weights]
        torch._foreach_add_(list(weights), torch._foreach_mul(list(gradient), distance))
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(list(weights), present)
