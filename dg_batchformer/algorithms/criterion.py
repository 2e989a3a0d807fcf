"""Classification losses that replace the mean cross-entropy, and the hparams that do not go with them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dg_batchformer.algorithms.base import TrainingSet
from dg_batchformer.errors import InputError


class Criterion(nn.Module):
    """Base class of classification losses that replace the mean cross-entropy in ``Algorithm.risk``.

    ``was_used`` is true once a risk has been computed with it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.was_used = False

    def forward(self, logits: Tensor, y: Tensor, env: Tensor | None) -> Tensor:
        """Compute the mean loss of samples, ().

        Args:
            logits: (N, num_classes).
            y: (N,) class indices.
            env: (N,) positions of the samples' environments among the training environments; None if unknown.

        """
        raise NotImplementedError


class CountedCriterion(Criterion):
    """Base class of losses that depend on the number of training images of every class and environment.

    ``counts`` is (environments + 1, num_classes). Its last row is the sum over environments, for samples whose
    environment is unknown.
    """

    def __init__(self, num_classes: int, num_domains: int) -> None:
        super().__init__()
        self.counts: Tensor
        self.register_buffer("counts", torch.zeros(num_domains + 1, num_classes))
        self.is_prepared = False

    def prepare(self, training: TrainingSet) -> None:
        """Store the class counts of a run."""
        counts = training.class_counts.to(self.counts)
        self.counts.copy_(torch.cat([counts, counts.sum(dim=0, keepdim=True)]))
        self.is_prepared = True

    def rows_of(self, table: Tensor, env: Tensor | None) -> Tensor:
        """Select the rows of a table (environments + 1, num_classes) for samples, (N or 1, num_classes).

        Raises InputError if ``prepare`` has not been called.
        """
        if not self.is_prepared:
            raise InputError(
                f"{type(self).__name__} depends on the number of images of every class: call prepare(TrainingSet(...)) "
                "before the first update"
            )
        return table[-1:] if env is None else table[env]

    def of_labels(self, table: Tensor, y: Tensor, env: Tensor | None) -> Tensor:
        """Look up a table (environments + 1, num_classes) by label and environment, (N,)."""
        return self.rows_of(table, env).expand(len(y), -1).gather(1, y[:, None]).squeeze(1)

    def class_weights(self) -> Tensor:
        """Compute weights in inverse proportion to counts, (environments + 1, num_classes).

        The weights of an environment sum to the number of classes. A class without images has weight 0.
        """
        return normalised(torch.where(self.counts > 0, 1 / self.counts.clamp_min(1), 0))

    def weighted_mean(self, losses: Tensor, weights: Tensor, env: Tensor | None) -> Tensor:
        """Average losses by weight within environments, then over environments, (N,), (N,) -> ()."""
        if env is None:
            return (losses * weights).sum() / weights.sum()
        zeros = losses.new_zeros(len(self.counts))
        sums, totals = (zeros.index_add(0, env, values) for values in (losses * weights, weights))
        return (sums / torch.where(totals > 0, totals, 1)).sum() / (totals > 0).sum()


class ReweightedLoss(CountedCriterion):
    """Cross-entropy weighted by ``w_k = (1 / n_k) / mean_j(1 / n_j)`` with the counts of the environment."""

    def forward(self, logits: Tensor, y: Tensor, env: Tensor | None) -> Tensor:
        weights = self.of_labels(self.class_weights(), y, env)
        return self.weighted_mean(F.cross_entropy(logits, y, reduction="none"), weights, env)


def normalised(weights: Tensor) -> Tensor:
    """Scale weights (..., num_classes) to sum to the number of classes."""
    return weights / weights.sum(dim=-1, keepdim=True) * weights.shape[-1]


def check_balances(name: str, hparams: Mapping[str, Any]) -> None:
    """Raise InputError for ``class_balanced`` with a loss that compensates class frequencies itself.

    Args:
        name: of the method.

    """
    if hparams["class_balanced"]:
        raise InputError(
            f"hparam class_balanced draws the classes equally often, so {name} would balance them twice; leave one of "
            "them out"
        )


def check_replaces(name: str, hparams: Mapping[str, Any]) -> None:
    """Raise InputError for ``label_smoothing`` with a loss that replaces the cross-entropy; see ``check_balances``."""
    if hparams.get("label_smoothing", 0.0):
        raise InputError(
            f"{name} replaces the classification loss, so label_smoothing would do nothing; leave one of them out"
        )
