"""Fishr — Rame et al., 2022: match the variances of gradients across environments."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from dg_batchformer.algorithms.base import Metrics, Minibatches, descend
from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.hparams import HParam


class Fishr(ERM):
    """Gradient variance matching: penalize distances of the classifier's gradient variances to their mean.

    Per-sample gradients use the plain stream.

    Differs from DomainBed: per-sample gradients are computed by torch.func instead of BackPACK.
    """

    compares_domains = True

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        return {
            "lambda": HParam(1000.0, lambda rng: 10 ** rng.uniform(1, 4), "weight of the penalty", low=0),
            "penalty_anneal_iters": HParam(
                1500, lambda rng: rng.uniform(0, 5000), "updates before the penalty is applied", low=0
            ),
            "ema": HParam(
                0.95, lambda rng: rng.uniform(0.9, 0.99), "decay of the moving average of variances", low=0, high=0.9999
            ),
        }

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        size = sum(parameter.numel() for parameter in self.classifier.parameters())
        self.variances: Tensor
        self.register_buffer("variances", torch.zeros(num_domains, size))
        self.updates = 0

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        risk, plain, labels = self.risk_and_features(minibatches)
        penalty = self._penalty(plain, labels, len(minibatches))
        anneal = self.hparams["penalty_anneal_iters"]
        if self.updates == anneal != 0:
            self.optimizer = self.new_optimizer(self.network)  # gradient magnitudes change here
        loss = risk + (self.hparams["lambda"] if self.updates >= anneal else 0.0) * penalty
        descend(self.optimizer, loss)
        self.updates += 1
        return {"loss": loss.detach(), "nll": risk.detach(), "penalty": penalty.detach()}

    def _penalty(self, z: Tensor, y: Tensor, num_domains: int) -> Tensor:
        """Compute the mean squared distance of gradient variances to their mean, and update their moving average."""
        gradients = self._gradients(z, y).unflatten(0, (num_domains, -1))  # (environments, n, parameters)
        ema = self.hparams["ema"]
        remembered = ema * self.variances + (1 - ema) * gradients.var(dim=1, correction=0)
        self.variances = remembered.detach()
        variances = remembered / (1 - ema)  # makes the gradient independent of ema
        return (variances - variances.mean(dim=0)).square().mean()

    def _gradients(self, z: Tensor, y: Tensor) -> Tensor:
        """Compute per-sample gradients of the classifier: (N, D), (N,) -> (N, parameters)."""
        parameters: dict[str, Tensor] = dict(self.classifier.named_parameters())

        def loss(values: dict[str, Tensor], features: Tensor, label: Tensor) -> Tensor:
            return F.cross_entropy(functional_call(self.classifier, values, (features[None],)), label[None])

        by_name = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, z, y)
        return torch.cat([by_name[name].flatten(1) for name in parameters], dim=1)
