"""LogitAdjust — Menon et al., 2021: add the logarithm of the class prior to the logits."""

import torch
from torch import Tensor
from torch.nn import functional as F

from dg_batchformer.algorithms.criterion import CountedCriterion
from dg_batchformer.hparams import HParam
from dg_batchformer.wrappers.criteria import ClassRisk


class LogitAdjustedLoss(CountedCriterion):
    """Cross-entropy of ``z + tau log(prior)``, with one prior for all environments."""

    def __init__(self, num_classes: int, num_domains: int, tau: float) -> None:
        super().__init__(num_classes, num_domains)
        self.tau = tau

    def forward(self, logits: Tensor, y: Tensor, env: Tensor | None) -> Tensor:
        counts = self.rows_of(self.counts, torch.arange(len(self.counts) - 1, device=y.device)).clamp_min(1)
        prior = (counts / counts.sum(dim=1, keepdim=True)).mean(dim=0)
        return F.cross_entropy(logits + self.tau * prior.log(), y)


class LogitAdjust(ClassRisk):
    """Logit adjustment: add ``tau log(prior)`` to the logits during training.

    The loss of a sample with logits z and label y is ``-log(p_y^tau exp(z_y) / sum_k p_k^tau exp(z_k))``. The prior p_k
    is the mean share of class k over training environments, which minibatches sample equally often. With the paper's
    tau of 1, the difference to BSoftmax is that BSoftmax has a prior for every environment.
    """

    @classmethod
    def settings(cls, dataset: str) -> dict[str, HParam]:
        return {"logitadjust_tau": HParam(1.0, about="factor of the logarithm of the prior", low=0)}

    def build_criterion(self, num_classes: int, num_domains: int) -> LogitAdjustedLoss:
        return LogitAdjustedLoss(num_classes, num_domains, self.hparams["logitadjust_tau"])
