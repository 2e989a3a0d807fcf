"""SelfReg — Kim et al., 2021: samples of the same class should have similar features and logits."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dg_batchformer.algorithms.base import Metrics, Minibatches, descend
from dg_batchformer.algorithms.erm import ERM


def same_class_partners(y: Tensor) -> Tensor:
    """Draw a random permutation within classes: (N,) -> (N,)."""
    partners = torch.empty_like(y)
    partners[y.argsort(stable=True)] = (y + torch.rand(len(y), device=y.device)).argsort()
    return partners


class SelfReg(ERM):
    """Self-supervised contrastive regularization: penalize distances to a same-class partner, and to a mixture of two.

    Partners are drawn among plain features and logits. The distances are weighted by the risk of plain rows, at most 1.

    Differs from DomainBed: the projection head is trained (upstream does not pass it to an optimizer).
    """

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        width = self.featurizer.n_outputs
        hidden = width if width == 2048 else 2 * width
        self.projection = nn.Sequential(
            nn.Linear(width, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, width),
            nn.BatchNorm1d(width),
        )
        self.optimizer = self.new_optimizer(self.network, self.projection)

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        num_domains = len(minibatches)
        y = torch.cat([y for _, y in minibatches])
        z = self.featurizer(torch.cat([x for x, _ in minibatches]))
        logits = self.classifier(z)
        risk = self.risk(logits, y, num_domains)
        plain = [self.split_streams(rows, num_domains)[0] for rows in (z, logits, y)]
        weight = self.plain_risk(logits, y, num_domains).detach().clamp_max(1)
        loss = risk + weight * self.dissimilarity(*plain)
        descend(self.optimizer, loss)
        return {"loss": loss.detach()}

    def dissimilarity(self, z: Tensor, logits: Tensor, y: Tensor) -> Tensor:
        projected = self.projection(z)
        share = float(np.random.beta(0.5, 0.5))
        first, second = same_class_partners(y), same_class_partners(y)

        def distance(to_features: Tensor, to_logits: Tensor) -> Tensor:
            return F.mse_loss(logits, to_logits) + 0.3 * F.mse_loss(z, to_features)

        def mixed(rows: Tensor) -> Tensor:
            return share * rows[first] + (1 - share) * rows[second]

        individual = distance(projected[first], logits[first])
        mixture = distance(mixed(projected), mixed(logits))
        return share * individual + (1 - share) * mixture
