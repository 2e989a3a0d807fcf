"""SAM — Foret et al., 2021: find weights whose whole neighborhood has a low loss."""

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
    """Sharpness-aware minimization: step along the gradient at nearby weights with (approximately) the largest loss.

    With w the weights (parameters,), and g the gradient of the risk there, the step is along the gradient at
    ``w + rho g / |g|``, where the norm is over all weights, including BatchFormer's. Both passes use the same dropout
    masks; only the first updates BatchNorm statistics.
    """

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        return {
            "rho": HParam(0.05, lambda rng: rng.choice([0.01, 0.02, 0.05, 0.1]), "radius of the perturbation", low=0)
        }

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
            gradient = [part.clone() for part in replayed]  # the next CUDA graph replay overwrites it
        with _moved(weights, gradient, self.ascent(_norm(gradient))), batch_norm_held(self.network):
            perturbed_loss, perturbed_gradient = risk_and_gradient()
        for parameter, direction in zip(weights, self.direction(gradient, perturbed_gradient), strict=True):
            parameter.grad = direction
        self.optimizer.step()
        return {"loss": loss, "perturbed_loss": perturbed_loss}

    def ascent(self, norm: Tensor) -> Tensor:
        """Return the factor from the gradient, of this norm, to the perturbation of the weights."""
        return self.hparams["rho"] / (norm + 1e-12)

    def direction(self, gradient: list[Tensor], perturbed: list[Tensor]) -> list[Tensor]:
        """Return the gradient for the optimizer, from those at the original and the perturbed weights."""
        return perturbed


def _norm(gradient: Sequence[Tensor]) -> Tensor:
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(gradient))))


@contextmanager
def _moved(weights: Sequence[Tensor], gradient: Sequence[Tensor], distance: Tensor) -> Iterator[None]:
    """Move weights along the gradient inside the context; then restore them exactly."""
    with torch.no_grad():
        present = [weight.clone() for weight in weights]
        torch._foreach_add_(list(weights), torch._foreach_mul(list(gradient), distance))
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(list(weights), present)
