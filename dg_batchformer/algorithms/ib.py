"""IB-ERM and IB-IRM — Ahuja et al., 2021: an information bottleneck that penalizes the variance of features."""

import torch
from torch import Tensor

from dg_batchformer.algorithms.annealed import Anneal
from dg_batchformer.algorithms.base import Metrics, Minibatches, forward_domains
from dg_batchformer.algorithms.irm import IRM


def _bottleneck(features: list[Tensor]) -> Tensor:
    """Compute the mean variance of features over environments: (n, d) each -> ()."""
    return torch.stack([z.var(dim=0).mean() for z in features]).mean()


class IB_ERM(IRM):  # noqa: N801 the field's name
    """ERM plus the variance of plain features.

    Differs from DomainBed: ``nll`` is the risk, not the total loss (upstream adds the penalty to it in place).
    """

    shapes_features = True
    penalties = {"ib": Anneal(weight=100.0, before=0.0)}

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        features, logits = self._forward(minibatches)
        risk = self.risks(logits, [y for _, y in minibatches]).mean()
        bottleneck = _bottleneck([self.plain_features(z) for z in features])
        loss = self.descend_with(risk, ib=bottleneck)
        return {"loss": loss, "nll": risk.detach(), "IB_penalty": bottleneck.detach()}

    def _forward(self, minibatches: Minibatches) -> tuple[list[Tensor], list[Tensor]]:
        features = forward_domains(self.featurizer, minibatches)
        logits = self.classifier(torch.cat(features)).split([len(z) for z in features])
        return features, list(logits)


class IB_IRM(IB_ERM):  # noqa: N801
    """IRM plus the variance of plain features.

    Differs from DomainBed: ``nll`` is the risk, not the total loss (upstream adds the penalties to it in place).
    """

    shapes_features = False  # the penalty of IRM trains the classifier too
    penalties = {**IRM.penalties, **IB_ERM.penalties}

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        features, logits = self._forward(minibatches)
        labels = [y for _, y in minibatches]
        risk = self.risks(logits, labels).mean()
        invariance = self.invariance_penalty(logits, labels)
        bottleneck = _bottleneck([self.plain_features(z) for z in features])
        loss = self.descend_with(risk, irm=invariance, ib=bottleneck)
        return {
            "loss": loss,
            "nll": risk.detach(),
            "IRM_penalty": invariance.detach(),
            "IB_penalty": bottleneck.detach(),
        }
