"""ANDMask and SANDMask — Parascandolo et al., 2021; Shahtalebi et al., 2021: follow gradients that agree."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dg_batchformer.algorithms.base import Metrics, Minibatches
from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.hparams import HParam


def agreement(gradients: Tensor) -> Tensor:
    """Return how far the signs of the environments' gradients agree, (environments, ...) -> (...) in [0, 1]."""
    return gradients.sign().mean(dim=0).abs()


class ANDMask(ERM):
    """Gradients are averaged over environments and kept where at least a share ``tau`` of their signs agree."""

    attends = "per_domain"

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        return {"tau": HParam(1.0, lambda rng: rng.uniform(0.5, 1), "agreement asked for", low=0, high=1)}

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        parameters = list(self.network.parameters())
        risks, gradients = [], []
        for x, y in minibatches:
            risk = self.risk(self.network(x), y)
            risks.append(risk.detach())
            gradients.append(torch.autograd.grad(risk, parameters, materialize_grads=True))
        for parameter, by_env in zip(parameters, zip(*gradients, strict=True), strict=True):
            parameter.grad = self._masked(by_env)
        self.optimizer.step()
        return {"loss": torch.stack(risks).mean()}

    def _masked(self, by_env: Sequence[Tensor]) -> Tensor:
        gradients = torch.stack(list(by_env))
        mask = self.mask(gradients)
        return mask * gradients.mean(dim=0) / (mask.mean() + 1e-10)

    def mask(self, gradients: Tensor) -> Tensor:
        """Return the mask of one parameter, (environments, ...) -> (...)."""
        return (agreement(gradients) >= self.hparams["tau"]).float()


class SANDMask(ANDMask):
    """ANDMask with a smooth mask, which grows with the agreement above ``tau`` and the similarity of the gradients.

    Differs from DomainBed: a ``tau`` of 1 asks all environments to agree, so full agreement is held against the middle
    between it and the next lower one (upstream's mask is then always zero: nothing trains).
    """

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        return {
            "tau": HParam(1.0, lambda rng: rng.uniform(0, 1), "agreement asked for", low=0, high=1),
            "k": HParam(10.0, lambda rng: 10 ** rng.uniform(-3, 5), "steepness of the mask", low=0),
        }

    def mask(self, gradients: Tensor) -> Tensor:
        threshold = min(self.hparams["tau"], 1 - 1 / len(gradients))
        variance = gradients.var(dim=0) if len(gradients) > 1 else torch.zeros_like(gradients[0])
        steepness = self.hparams["k"] / variance.clamp_min(1e-17)
        return torch.tanh(steepness * (agreement(gradients) - threshold)).clamp_min(0)
