"""CAD and CondCAD — Ruan et al., 2022: a contrastive bottleneck that hides the domain."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dg_batchformer.algorithms.base import Metrics, Minibatches, descend, domain_labels
from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.hparams import HParam

_BASE_TEMPERATURE = 0.07


class CAD(ERM):
    """Contrastive adversarial domain: features should not reveal which samples share a domain.

    The bottleneck loss uses plain features.

    Differs from DomainBed: ``is_project`` works (upstream reads an undefined name), and terms that are not finite are
    masked without synchronizing with the device.
    """

    compares_domains = True
    shapes_features = True

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        decades = [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2]
        return {
            "lmbda": HParam(1e-1, lambda rng: rng.choice(decades), "weight of the bottleneck", low=0),
            "temperature": HParam(
                0.1, lambda rng: rng.choice([0.05, 0.1]), "temperature of the contrastive loss", low=1e-4
            ),
            "is_normalized": HParam(False, about="normalize features for the contrastive loss"),
            "is_project": HParam(False, about="use a projection head for the contrastive loss"),
            "is_flipped": HParam(True, about="attract other domains, instead of repelling the same one"),
        }

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        width = self.featurizer.n_outputs
        self.project: nn.Module = nn.Identity()
        if hparams["is_project"]:
            self.project = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 128))
        self.optimizer = self.new_optimizer(self.network, self.project)

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        risk, plain, labels = self.risk_and_features(minibatches)
        bottleneck = self.bottleneck_loss(plain, labels, domain_labels(len(minibatches), plain))
        loss = risk + self.hparams["lmbda"] * bottleneck
        descend(self.optimizer, loss)
        return {"clf_loss": risk.detach(), "bn_loss": bottleneck.detach(), "total_loss": loss.detach()}

    def bottleneck_loss(self, z: Tensor, y: Tensor, domains: Tensor) -> Tensor:
        z = self.project(z)
        if self.hparams["is_normalized"]:
            z = F.normalize(z, dim=1)
        others = ~torch.eye(len(z), dtype=torch.bool, device=z.device)
        logits = (z @ z.T / self.hparams["temperature"]) * others
        logits = logits - logits.max(dim=1, keepdim=True).values.detach()
        candidates, sought, anchors = self._sets(y[:, None] == y, domains[:, None] == domains, others)
        found = _log_sum(logits, sought) - _log_sum(logits, candidates)
        sign = -1.0 if self.hparams["is_flipped"] else 1.0
        counted = anchors & found.isfinite()
        terms = torch.where(counted, found, 0.0).sum() / counted.sum().clamp_min(1)
        return sign * self.hparams["temperature"] / _BASE_TEMPERATURE * terms

    def _sets(self, same_class: Tensor, same_domain: Tensor, others: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return masks of the candidates and of the positives, (N, N) each, and of the anchors that count, (N,)."""
        sought = ~same_domain if self.hparams["is_flipped"] else same_domain
        return others, sought, (same_class & others).any(dim=1)


class CondCAD(CAD):
    """Conditional CAD: within a class, features should not reveal which samples share a domain."""

    def _sets(self, same_class: Tensor, same_domain: Tensor, others: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        candidates = same_class & others
        sought = candidates & (~same_domain if self.hparams["is_flipped"] else same_domain)
        return candidates, sought, sought.any(dim=1)


def _log_sum(logits: Tensor, mask: Tensor) -> Tensor:
    """Compute log-sum-exp over the masked columns: (N, N) -> (N,); -inf for empty rows."""
    return logits.masked_fill(~mask, -torch.inf).logsumexp(dim=1)
