"""V-REx — Krueger et al., 2021: equalize risks across environments."""

from torch import Tensor

from dg_batchformer.algorithms.annealed import Anneal, AnnealedPenalty
from dg_batchformer.algorithms.base import Metrics, Minibatches, forward_domains


class VREx(AnnealedPenalty):
    """Risk extrapolation: penalize the variance of risks over environments.

    With BatchFormer, the risk of an environment, and so the variance, includes both streams.

    Differs from DomainBed: ``nll`` is the mean risk, not the last environment's.
    """

    compares_domains = True
    penalties = {"vrex": Anneal(weight=10.0, before=1.0)}

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        logits = forward_domains(self.network, minibatches)
        risks = self.risks(logits, [y for _, y in minibatches])
        penalty = risks.var(correction=0)
        loss = self.descend_with(risks.mean(), vrex=penalty)
        return {"loss": loss, "nll": risks.mean().detach(), "penalty": penalty.detach()}
