"""RIDG — Chen et al., 2023: samples of a class give the same reasons for every logit."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dg_batchformer.algorithms.base import Metrics, Minibatches, class_counts, descend
from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.errors import InputError
from dg_batchformer.hparams import HParam


def rationales(z: Tensor, weight: Tensor) -> Tensor:
    """Compute the contribution of every feature to every logit: (N, D), (classes, D) -> (N, classes, D)."""
    return z[:, None] * weight


def rationale_penalty(samples: Tensor, y: Tensor, bank: Tensor) -> Tensor:
    """Compute the squared distance of rationales from those of their class, averaged over logits and within classes.

    The averages of the classes in the batch are added up.

    Args:
        samples: rationales, (N, classes, D).
        y: (N,) class indices.
        bank: the rationales of every class, (classes, classes, D).

    """
    distances = (samples - bank[y]).square().sum(dim=2).mean(dim=1)
    return (distances / class_counts(y, len(bank))[y]).sum()


class RIDG(ERM):
    """Rationale invariance: ERM plus the distance of each sample's rationale from the running mean of its class.

    With features z (D,) and the weights w_k (D,) of a linear classifier, the rationale of a sample is the matrix with
    rows ``w_k * z``, whose sums are the logits without bias. The bank keeps one such matrix for every class: that of
    the first batch with the class, then an exponential moving average, in which a batch has weight ``ridg_momentum``.
    Rationales are those of plain rows. The bank takes num_classes^2 x D numbers, 1 GB for DomainNet on a ResNet-50.

    Differs from the authors' release: features are computed once an update instead of twice, so that penalty and risk
    see the same dropout, and the bank is part of the checkpoint.
    """

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        return {
            "ridg_reg": HParam(0.01, lambda rng: 10 ** rng.uniform(-2, -1), "weight of the distances", low=0),
            "ridg_momentum": HParam(
                0.001, lambda rng: 10 ** rng.uniform(-4, -1), "weight of a batch in the means of classes", low=0, high=1
            ),
        }

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        if not isinstance(self.classifier, nn.Linear):
            raise InputError("RIDG compares the weights of a linear classifier; set hparam nonlinear_classifier false")
        self.bank: Tensor
        self.seen: Tensor
        self.register_buffer("bank", torch.zeros(num_classes, num_classes, self.featurizer.n_outputs))
        self.register_buffer("seen", torch.zeros(num_classes, dtype=torch.bool))

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        risk, plain, labels = self.risk_and_features(minibatches)
        samples = rationales(plain, self.classifier.get_parameter("weight"))
        self._remember(samples.detach(), labels)
        penalty = rationale_penalty(samples, labels, self.bank)
        descend(self.optimizer, risk + self.hparams["ridg_reg"] * penalty)
        return {"loss": risk.detach(), "penalty": penalty.detach()}

    def _remember(self, samples: Tensor, y: Tensor) -> None:
        members = (y[:, None] == torch.arange(len(self.bank), device=y.device)).to(samples)  # (N, classes)
        counts = members.sum(dim=0)
        means = (members.T @ samples.flatten(1)).view_as(self.bank) / counts.clamp_min(1)[:, None, None]
        weights = torch.where(self.seen, self.hparams["ridg_momentum"], 1.0) * (counts > 0)
        self.bank.lerp_(means, weights[:, None, None])
        self.seen |= counts > 0
