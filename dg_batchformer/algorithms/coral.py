"""CORAL — Sun & Saenko, 2016: match the domains' feature covariances."""

from collections.abc import Callable
from itertools import combinations

import torch
from torch import Tensor

from dg_batchformer.algorithms.base import Metrics, Minibatches, descend, forward_domains
from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.hparams import HParam


def coral_distance(a: Tensor, b: Tensor) -> Tensor:
    """Compute the mean squared difference of means plus that of covariances: (n, d), (m, d) -> ()."""
    means = (a.mean(dim=0) - b.mean(dim=0)).square().mean()
    return means + (_covariance(a) - _covariance(b)).square().mean()


def _covariance(z: Tensor) -> Tensor:
    centred = z - z.mean(dim=0)
    return centred.T @ centred / (len(z) - 1)  # torch.cov synchronizes with the device


class CORAL(ERM):
    """Correlation alignment: ERM plus the mean distance between the features of pairs of environments.

    Distances use plain features.

    Differs from DomainBed: one forward pass for all environments, which is equivalent unless BatchNorm is in training
    mode.
    """

    compares_domains = True
    shapes_features = True

    distance: Callable[[Tensor, Tensor], Tensor] = staticmethod(coral_distance)

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        return {"mmd_gamma": HParam(1.0, lambda rng: 10 ** rng.uniform(-1, 1), "weight of the distance", low=0)}

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        features = forward_domains(self.featurizer, minibatches)
        logits = self.classifier(torch.cat(features))
        risk = self.risk(logits, torch.cat([y for _, y in minibatches]), num_domains=len(minibatches))
        penalty = self.penalty([self.plain_features(z) for z in features])
        descend(self.optimizer, risk + self.hparams["mmd_gamma"] * penalty)
        return {"loss": risk.detach(), "penalty": penalty.detach()}

    def penalty(self, features: list[Tensor]) -> Tensor:
        """Compute the mean distance over pairs of environments: (n, d) each -> ()."""
        distances = [self.distance(a, b) for a, b in combinations(features, 2)]
        return torch.stack(distances).mean() if distances else features[0].new_zeros(())
