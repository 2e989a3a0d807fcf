"""V-REx — Krueger et al., 2021: equal risks over the environments."""

import torch
from torch import Tensor

from dg_batchformer.algorithms.annealed import AnnealedPenalty
from dg_batchformer.algorithms.base import Metrics, Minibatches, forward_domains


class VREx(AnnealedPenalty):
    """Risk extrapolation: the variance of the risks over environments is penalised.

    Upstream reports the last environment's risk as ``nll``; here it is their mean.
    """

    prefix = "vrex"
    default_lambda = 10.0

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        logits = forward_domains(self.network, minibatches)
        risks = torch.stack([self.risk(z, y) for z, (_, y) in zip(logits, minibatches, strict=True)])
        penalty = risks.var(correction=0)
        loss = self.descend_with(risks.mean(), penalty)
        return {"loss": loss, "nll": risks.mean().detach(), "penalty": penalty.detach()}
