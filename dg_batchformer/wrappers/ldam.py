"""LDAM — Cao et al., 2019: larger margins for rare classes, and deferred re-weighting."""

from math import inf

import torch
from torch import Tensor
from torch.nn import functional as F

from dg_batchformer.algorithms.base import Metrics, Minibatches, TrainingSet
from dg_batchformer.algorithms.criterion import CountedCriterion, normalised
from dg_batchformer.hparams import HParam
from dg_batchformer.wrappers.criteria import ClassRisk


class LDAMLoss(CountedCriterion):
    """Cross-entropy of scaled logits, with a margin on the label's logit that decreases with the class count.

    Args:
        num_classes: number of classes.
        num_domains: number of training environments.
        max_margin: margin of the rarest class.
        scale: factor of the logits.
        beta: parameter of the effective number of samples, for class weights while ``is_reweighting``.

    """

    def __init__(self, num_classes: int, num_domains: int, max_margin: float, scale: float, beta: float) -> None:
        super().__init__(num_classes, num_domains)
        self.max_margin, self.scale, self.beta = max_margin, scale, beta
        self.is_reweighting = False

    def forward(self, logits: Tensor, y: Tensor, env: Tensor | None) -> Tensor:
        margins = self.of_labels(self._margins(), y, env)
        shifted = logits - margins[:, None] * F.one_hot(y, logits.shape[1])
        losses = F.cross_entropy(self.scale * shifted, y, reduction="none")
        if not self.is_reweighting:
            return losses.mean()
        return self.weighted_mean(losses, self.of_labels(self._weights(), y, env), env)

    def _margins(self) -> Tensor:
        """Compute ``max_margin (n_k / n_min)^(-1/4)``, (environments + 1, num_classes); 0 for absent classes."""
        roots = torch.where(self.counts > 0, self.counts.clamp_min(1) ** -0.25, 0)
        return self.max_margin * roots / roots.amax(dim=1, keepdim=True)

    def _weights(self) -> Tensor:
        """Compute weights by the effective number of samples, ``(1 - beta) / (1 - beta^n_k)`` (Cui et al., 2019)."""
        effective = (1 - self.beta) / (1 - self.beta ** self.counts.double().clamp_min(1))
        return normalised(torch.where(self.counts > 0, effective, 0)).to(self.counts)


class LDAM(ClassRisk):
    """Label-distribution-aware margins, with deferred re-weighting (DRW) toward the end of the run.

    The loss of a sample with logits z and label y is the cross-entropy of ``s z``, with ``s (z_y - m_y)`` for the
    label. The margin is ``m_k = C n_k^(-1/4)``, where n_k is the number of training images of class k in the
    environment of the sample, and C gives the rarest class the margin ``ldam_max_m``. After the share ``ldam_defer``
    of the updates, samples have the weight ``(1 - beta) / (1 - beta^n)``. As in MDLT (Yang et al., 2022), margins
    depend on the environment and logits are not normalized; MDLT does not re-weight, which is ``ldam_defer`` 1.
    """

    reweights_from: float = inf

    @classmethod
    def settings(cls, dataset: str) -> dict[str, HParam]:
        return {
            "ldam_max_m": HParam(0.5, about="margin of the rarest class", low=0),
            "ldam_scale": HParam(30.0, about="factor of the logits", low=0),
            "ldam_defer": HParam(0.8, about="share of updates before re-weighting", low=0, high=1),
            "ldam_beta": HParam(0.9999, about="parameter of the effective number of samples", low=0, high=0.999999),
        }

    def build_criterion(self, num_classes: int, num_domains: int) -> LDAMLoss:
        read = (self.hparams[name] for name in ("ldam_max_m", "ldam_scale", "ldam_beta"))
        return LDAMLoss(num_classes, num_domains, *read)

    def prepare(self, training: TrainingSet) -> None:
        super().prepare(training)
        self.reweights_from = self.hparams["ldam_defer"] * training.steps

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        loss = self.criterion_inside
        assert isinstance(loss, LDAMLoss)
        loss.is_reweighting = self.updates >= self.reweights_from
        return super().update(minibatches, unlabeled)
