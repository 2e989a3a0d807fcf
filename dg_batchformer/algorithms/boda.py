"""BoDA — Yang et al., 2022: align features of a class across domains, weighted by numbers of training images."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from dg_batchformer.algorithms.base import Metrics, Minibatches, TrainingSet, descend, domain_labels, forward_domains
from dg_batchformer.algorithms.coral import coral_distance
from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.hparams import HParam

_LOWEST = -1e30  # finite: a sample without any other pair would have a gradient of NaN


def boda_loss(
    z: Tensor,
    y: Tensor,
    env: Tensor,
    centroids: Tensor,
    known: Tensor,
    counts: Tensor,
    nu: float,
    temperature: float,
) -> Tensor:
    """Compute the calibrated balanced alignment loss, ().

    A sample of environment e and class c has a logit for every pair (e', c') of environment and class:
    ``-d (N_e'c' / N_ec)^nu / N_ec / temperature``, with its distance d to the centroid of the pair and numbers of
    training images N. The softmax is over all pairs except (e, c). The loss is the mean negative log-softmax of the
    pairs with class c in other environments.

    Args:
        z: (N, d) features.
        y: (N,) class indices.
        env: (N,) environments.
        centroids: (environments, num_classes, d).
        known: (environments, num_classes) mask of pairs that have a centroid; others are left out.
        counts: (environments, num_classes) numbers of training images.
        nu: exponent of the calibration.
        temperature: of the softmax.

    """
    num_classes = centroids.shape[1]
    own = counts[env, y][:, None]  # (N, 1)
    distances = torch.cdist(z, centroids.flatten(0, 1))  # (N, pairs)
    logits = -distances / own * (counts.flatten()[None] / own) ** nu / temperature
    pairs = torch.arange(known.numel(), device=z.device)
    others = known.flatten() & (pairs != (env * num_classes + y)[:, None])
    log_probs = logits - logits.masked_fill(~others, _LOWEST).logsumexp(dim=1, keepdim=True)
    positive = others & (pairs % num_classes == y[:, None])
    number = positive.sum()
    return -torch.where(positive, log_probs, 0).sum() / number.clamp_min(1)


class BoDA(ERM):
    """Balanced domain-class distribution alignment: pull features toward the centroids of their class elsewhere.

    The loss is the risk, plus ``macro_weight`` times CORAL's mean distance between pairs of environments, plus
    ``boda_weight`` times the calibrated balanced alignment loss, which starts after the share ``boda_start`` of the
    updates. Both penalties use plain features.

    Differs from upstream: the start is a share of the updates; upstream's 500, and 3,000 on DomainNet, are such shares
    of its 5,000 and 15,000 updates. Centroids are running means over minibatches, the present one included, in which a
    new minibatch has the weight ``centroid_share``; upstream computes them from all training images every
    ``feat_update_freq`` updates, and averages them with those before.
    """

    compares_domains = True
    shapes_features = True

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        large = dataset == "DomainNet"
        return {
            "boda_start": HParam(
                0.2 if large else 0.1,
                lambda rng: rng.choice([0.13, 0.2, 0.27, 0.33]) if large else rng.choice([0.06, 0.08, 0.1, 0.12]),
                "share of the updates before the alignment starts",
                low=0,
                high=1,
            ),
            "nu": HParam(0.5, lambda rng: 10 ** rng.uniform(-0.5, 0), "exponent of the ratio of counts", low=0),
            "boda_weight": HParam(0.1, lambda rng: 10 ** rng.uniform(-2, -0.5), "weight of the alignment", low=0),
            "temperature": HParam(1.0, lambda rng: 10 ** rng.uniform(-1, 0.5), "of the alignment", low=1e-3),
            "macro_weight": HParam(1.0, lambda rng: 10 ** rng.uniform(-1, 1), "weight of CORAL's distance", low=0),
            "centroid_share": HParam(0.1, about="weight of a new minibatch in the centroids", low=0, high=1),
        }

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.counts: Tensor
        self.centroids: Tensor
        self.known: Tensor
        self.register_buffer("counts", torch.ones(num_domains, num_classes))
        self.register_buffer("centroids", torch.zeros(num_domains, num_classes, self.featurizer.n_outputs))
        self.register_buffer("known", torch.zeros(num_domains, num_classes, dtype=torch.bool))
        self.updates = 0
        self.aligns_after = 0.0  # updates

    def prepare(self, training: TrainingSet) -> None:
        self.aligns_after = self.hparams["boda_start"] * training.steps
        self.counts.copy_(training.class_counts.clamp_min(1))

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        self.updates += 1
        num_domains = len(minibatches)
        features = forward_domains(self.featurizer, minibatches)
        labels = torch.cat([y for _, y in minibatches])
        risk = self.risk(self.classifier(torch.cat(features)), labels, num_domains)
        plain = [self.plain_features(z) for z in features]
        z, (y, _) = torch.cat(plain), self.split_streams(labels, num_domains)
        env = domain_labels(num_domains, y)
        macro = _mean([coral_distance(a, b) for a, b in combinations(plain, 2)], risk)
        loss = risk + self.hparams["macro_weight"] * macro
        metrics: Metrics = {"loss": risk.detach(), "macro_penalty": macro.detach()}
        self._move_centroids(z.detach(), y, env)
        if self.updates > self.aligns_after:
            nu, temperature = self.hparams["nu"], self.hparams["temperature"]
            alignment = boda_loss(z, y, env, self.centroids, self.known, self.counts, nu, temperature)
            loss = loss + self.hparams["boda_weight"] * alignment
            metrics["alignment_penalty"] = alignment.detach()
        descend(self.optimizer, loss)
        return metrics

    @torch.no_grad()
    def _move_centroids(self, z: Tensor, y: Tensor, env: Tensor) -> None:
        """Update the centroids of the pairs in a minibatch; new pairs start at their mean."""
        before, pairs = self.centroids.flatten(0, 1), env * self.centroids.shape[1] + y
        numbers = torch.zeros_like(before[:, :1]).index_add(0, pairs, torch.ones_like(z[:, :1]))
        means = torch.zeros_like(before).index_add(0, pairs, z) / numbers.clamp_min(1)
        moved = torch.where(self.known.view(-1, 1), before.lerp(means, self.hparams["centroid_share"]), means)
        self.centroids.copy_(torch.where(numbers > 0, moved, before).view_as(self.centroids))
        self.known |= (numbers > 0).view_as(self.known)


def _mean(values: Sequence[Tensor], like: Tensor) -> Tensor:
    return torch.stack(list(values)).mean() if values else like.new_zeros(())
