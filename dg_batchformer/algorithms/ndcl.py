"""NDCL — Cao et al., 2026: contrast classes with mixed samples near their decision boundaries."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dg_batchformer.algorithms.base import Metrics, Minibatches, TrainingSet, descend, domain_labels
from dg_batchformer.algorithms.criterion import CountedCriterion, check_balances, check_replaces
from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.hparams import HParam
from dg_batchformer.networks.batchformer import pairing


class HardestLoss(CountedCriterion):
    """Cross-entropy weighted by inverse counts and, within a class, toward the hardest samples.

    Averages ``sum_i w_i softmax(l)_i l_i`` over the classes of a batch, where i are the samples of the class, l their
    cross-entropies, and ``w = (1 / n) / mean_k(1 / n_k)`` with the number n of images of class and environment.
    """

    def forward(self, logits: Tensor, y: Tensor, env: Tensor | None) -> Tensor:
        losses = F.cross_entropy(logits, y, reduction="none")
        same = y[:, None] == y[None]
        share = losses.detach()[None].masked_fill(~same, -torch.inf).softmax(dim=1).diagonal()  # among the own class
        weighted = losses * share * self.of_labels(self.class_weights(), y, env)
        return weighted.sum() / F.one_hot(y, logits.shape[1]).amax(dim=0).sum()


def negatives_loss(positives: Tensor, negatives: Tensor) -> Tensor:
    """Compute the mean over positives of ``-log(sum_neg exp(d) / sum_all exp(d))``, d = 1 - cosine similarity.

    Unlike in InfoNCE, negatives are in the numerator.

    Args:
        positives: (n, num_classes) predicted probabilities of the samples of a class.
        negatives: (m, num_classes) predicted probabilities of its negatives.

    """
    distances = 1 - _cosines(positives, torch.cat([positives, negatives]))
    distances = distances.masked_fill(
        torch.eye(*distances.shape, dtype=torch.bool, device=distances.device), -torch.inf
    )
    return (distances.logsumexp(dim=1) - distances[:, len(positives) :].logsumexp(dim=1)).mean()


def prototype_loss(prototypes: Tensor, classes: Tensor) -> Tensor:
    """Contrast prototypes by cosine similarity, with the prototypes of the same class as positives, ().

    Averages ``-log(sum_same exp(s) / sum_all exp(s))`` over the prototypes of a class, then over classes that occur in
    several environments.

    Args:
        prototypes: (P, num_classes) mean predicted probabilities by environment and class.
        classes: (P,) class of each prototype.

    """
    same = classes[:, None] == classes[None]
    numbers = same.sum(dim=1)
    several = numbers > 1  # a class that occurs in one environment has no positive
    prototypes, classes, same = prototypes[several], classes[several], same[several][:, several]
    if not len(prototypes):
        return prototypes.new_zeros(())
    itself = torch.eye(len(classes), dtype=torch.bool, device=classes.device)
    cosines = _cosines(prototypes, prototypes).masked_fill(itself, -torch.inf)
    losses = cosines.logsumexp(dim=1) - cosines.masked_fill(~same, -torch.inf).logsumexp(dim=1)
    return (losses / numbers[several]).sum() / len(classes.unique())


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    """Compute cosine similarities, (n, d), (m, d) -> (n, m)."""
    return F.normalize(a, dim=1) @ F.normalize(b, dim=1).T


class NDCL(ERM):
    """Negatives-dominant contrastive learning: a weighted risk, contrasts with mixed negatives, aligned prototypes.

    The risk weights samples by inverse class counts and toward the hardest samples of a class. ``alpha`` times the
    negatives-dominant loss is added, averaged over classes, and ``beta`` times the prototype loss over pairs of
    environment and class. A negative of a class is a mixture of one of its least confident samples and of a sample of
    another class that is confidently assigned to it, with a share that is drawn once per batch from Beta(``mixup``,
    ``mixup``). The number of negatives of a class is proportional to the softmax of its share in the batch. Both
    penalties use plain rows.

    Differs from upstream in the samples that are mixed. Upstream takes a quarter, half or three quarters of a class,
    and of the other classes those above the probability 2 / num_classes, above 1 / num_classes or all, by rules on
    their numbers. Here it is always the least confident half, with all samples of other classes above 1 / num_classes,
    or with all if none is above. Where these pairs are too few they repeat, while upstream then mixes samples of
    other classes first, and draws the share of a single sample again.
    """

    needs_pixels = "NDCL mixes the pixels of images"

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        return {
            "mixup": HParam(0.2, lambda rng: rng.uniform(0.1, 0.3), "of the Beta distribution", low=1e-3),
            "alpha": HParam(0.1, lambda rng: 10 ** rng.uniform(-3, 0), "weight of the negatives", low=0),
            "beta": HParam(0.1, lambda rng: 10 ** rng.uniform(-3, 0), "weight of the prototypes", low=0),
        }

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        check_balances("NDCL", hparams)
        check_replaces("NDCL", hparams)
        self.hardest_loss = HardestLoss(num_classes, num_domains)
        self.criterion = self.hardest_loss

    def prepare(self, training: TrainingSet) -> None:
        self.hardest_loss.prepare(training)

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        num_domains = len(minibatches)
        x, labels = (torch.cat([batch[part] for batch in minibatches]) for part in (0, 1))
        logits = self.network(x)
        risk = self.risk(logits, labels, num_domains)
        (x, _), (plain, _), (y, _) = (self.split_streams(rows, num_domains) for rows in (x, logits, labels))
        predicted = plain.softmax(dim=1)
        negatives = self._negatives_penalty(x, y, predicted)
        prototypes = prototype_loss(*_prototypes(predicted, y, domain_labels(num_domains, y)))
        descend(self.optimizer, risk + self.hparams["alpha"] * negatives + self.hparams["beta"] * prototypes)
        return {
            "loss": risk.detach(),
            "negatives_penalty": negatives.detach(),
            "prototype_penalty": prototypes.detach(),
        }

    def _negatives_penalty(self, x: Tensor, y: Tensor, predicted: Tensor) -> Tensor:
        """Average the negatives-dominant loss over the classes of a batch; 0 if the batch has a single class."""
        mixtures = list(hard_negatives(x, y, predicted.detach(), self.hparams["mixup"]))
        if len(mixtures) < 2:
            return predicted.new_zeros(())
        with pairing(self.network, None):
            mixed = self.network(torch.cat([rows for _, rows in mixtures])).softmax(dim=1)
        parts = mixed.split([len(rows) for _, rows in mixtures])
        losses = [negatives_loss(predicted[y == label], part) for (label, _), part in zip(mixtures, parts, strict=True)]
        return torch.stack(losses).mean()


def hard_negatives(x: Tensor, y: Tensor, predicted: Tensor, alpha: float) -> Iterator[tuple[int, Tensor]]:
    """Yield the classes of a batch with their negatives, which together are as many as the batch has samples.

    A batch of one class has no negatives.
    """
    classes, numbers = y.unique(return_counts=True)
    if len(classes) == 1:
        return
    share = float(np.random.beta(alpha, alpha))
    for label, number in zip(classes.tolist(), numbers_of_negatives(len(y), numbers.tolist()), strict=True):
        confidence, own = predicted[:, label], y == label
        hard = _sorted(own, confidence)[: (int(own.sum()) + 1) // 2]
        near = _sorted(~own, -confidence)
        above = int((confidence[near] > 1 / predicted.shape[1]).sum())
        near = near[:above] if above else near
        places = torch.arange(number, device=y.device)
        partners = near[places // len(hard) % len(near)]
        yield label, share * x[hard[places % len(hard)]] + (1 - share) * x[partners]


def numbers_of_negatives(total: int, numbers: list[int]) -> list[int]:
    """Divide a total among classes by the softmax of their shares in a batch, rounded up from the first class on."""
    shares = np.exp(np.array(numbers) / sum(numbers))
    ends = np.ceil(np.round(total * shares.cumsum() / shares.sum(), 9)).astype(int)
    return np.diff(ends, prepend=0).tolist()


def _sorted(where: Tensor, values: Tensor) -> Tensor:
    """Return the indices where a mask is true, (n,), sorted by ascending values."""
    places = where.nonzero().squeeze(1)
    return places[values[places].argsort(stable=True)]


def _prototypes(predicted: Tensor, y: Tensor, env: Tensor) -> tuple[Tensor, Tensor]:
    """Average predictions by environment and class, (P, num_classes), and return the classes of the averages, (P,)."""
    num_classes = predicted.shape[1]
    pairs, places, numbers = (env * num_classes + y).unique(return_inverse=True, return_counts=True)
    sums = predicted.new_zeros(len(pairs), num_classes).index_add(0, places, predicted)
    return sums / numbers[:, None], pairs % num_classes
