"""CRT — Kang et al., 2020: train all weights first, then retrain the classifier with balanced classes."""

from collections.abc import Sequence
from math import inf
from typing import Any

import torch
from torch import Tensor

from dg_batchformer.algorithms.base import Metrics, Minibatches, TrainingSet, descend, domain_labels
from dg_batchformer.algorithms.criterion import ReweightedLoss, check_balances
from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.hparams import HParam


class CRT(ERM):
    """Classifier re-training: ERM in the first stage, then training of the classifier with balanced classes.

    The second stage trains the classifier alone and weights a sample by ``1 / n``, with the number n of training images
    of its class and environment, which equals class-balanced sampling in expectation. It uses plain features only, and
    no label smoothing.
    BatchNorm that is not frozen goes on estimating its statistics.

    Differs from the paper: the second stage continues from the classifier of the first one instead of a random one, so
    that wrappers can average weights across the stages.
    """

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        return {
            "crt_share": HParam(
                0.7, lambda rng: rng.uniform(0.5, 0.9), "share of updates in the first stage", low=0, high=1
            ),
            "crt_lr": HParam(1e-3, lambda rng: 10 ** rng.uniform(-4, -2), "learning rate of the second stage", low=0),
        }

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        check_balances("CRT", hparams)
        self.check_trains_head()
        self.balanced_loss = ReweightedLoss(num_classes, num_domains)
        self.classifier_optimizer = self.new_optimizer(self.classifier, lr=hparams["crt_lr"])
        self.updates = 0
        self.retrains_from = inf

    def prepare(self, training: TrainingSet) -> None:
        self.balanced_loss.prepare(training)
        self.retrains_from = self.hparams["crt_share"] * training.steps

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        self.updates += 1
        if self.updates <= self.retrains_from:
            return super().update(minibatches, unlabeled)
        num_domains = len(minibatches)
        with torch.no_grad():
            z = self.forward_plain(self.featurizer, minibatches)
        y, _ = self.split_streams(torch.cat([y for _, y in minibatches]), num_domains)
        loss = self.balanced_loss(self.classifier(z), y, domain_labels(num_domains, y))
        descend(self.classifier_optimizer, loss)
        return {"loss": loss.detach()}
