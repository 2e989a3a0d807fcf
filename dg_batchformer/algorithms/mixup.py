"""Mixup — Zhang et al., 2018; Yan et al., 2020: train on mixed samples and labels of two domains."""

import numpy as np
import torch
from torch import Tensor

from dg_batchformer.algorithms.base import Metrics, Minibatches, descend, forward_domains
from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.hparams import HParam


class Mixup(ERM):
    """Inter-domain mixup: mix every environment with the next one in a random cyclic order.

    Samples are mixed before BatchFormer; both streams share the mixture.

    Differs from DomainBed: one forward pass for all mixtures, which is equivalent unless BatchNorm is in training mode.
    """

    needs_pixels = "Mixup mixes the pixels of images"
    compares_domains = True

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        return {
            "mixup_alpha": HParam(
                0.2, lambda rng: 10 ** rng.uniform(-1, 1), "parameter of the Beta distribution", low=1e-3
            )
        }

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        ring = [minibatches[env] for env in torch.randperm(len(minibatches)).tolist()]
        alpha = self.hparams["mixup_alpha"]
        shares = [float(np.random.beta(alpha, alpha)) for _ in ring]
        following = [*ring[1:], ring[0]]
        mixtures = [
            (share * x + (1 - share) * other, y)
            for share, (x, y), (other, _) in zip(shares, ring, following, strict=True)
        ]
        logits = forward_domains(self.network, mixtures)
        risks = [
            share * self.risk(z, y) + (1 - share) * self.risk(z, other)
            for share, z, (_, y), (_, other) in zip(shares, logits, ring, following, strict=True)
        ]
        loss = torch.stack(risks).mean()
        descend(self.optimizer, loss)
        return {"loss": loss.detach()}
