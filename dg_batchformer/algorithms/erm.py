"""ERM — Vapnik, 1998: minimize the mean loss over the samples of all environments."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dg_batchformer.algorithms.base import Algorithm, Metrics, Minibatches, descend
from dg_batchformer.hparams import NOTHING, WHOLE
from dg_batchformer.networks import Classifier, Featurizer


class ERM(Algorithm):
    """Empirical risk minimization: cross-entropy on all domains together."""

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.featurizer = Featurizer(input_shape, hparams)
        self.classifier = Classifier(self.featurizer.n_outputs, num_classes, hparams["nonlinear_classifier"])
        self.network = nn.Sequential(self.featurizer, self.classifier)
        self.optimizer = self.new_optimizer(self.network)

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        x = torch.cat([x for x, _ in minibatches])
        y = torch.cat([y for _, y in minibatches])
        loss = self.risk(self.network(x), y, num_domains=len(minibatches))
        descend(self.optimizer, loss)
        return {"loss": loss.detach()}

    def risk_and_features(self, minibatches: Minibatches) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the risk (), and the features (N, D) and labels (N,) of plain rows for a penalty on features."""
        num_domains = len(minibatches)
        y = torch.cat([y for _, y in minibatches])
        z = self.featurizer(torch.cat([x for x, _ in minibatches]))
        risk = self.risk(self.classifier(z), y, num_domains)
        labels, _ = self.split_streams(y, num_domains)
        return risk, self.plain_features(z, num_domains), labels

    def plain_features(self, z: Tensor, num_domains: int = 1) -> Tensor:
        """Select the plain rows of features for a penalty, detached if all of the featurizer is frozen.

        Their gradient would end there. With BatchFormer, autograd would compute it all the same, as plain rows share a
        tensor with their twins.
        """
        plain, _ = self.split_streams(z, num_domains)
        return plain.detach() if getattr(self.featurizer, "frozen", NOTHING) == WHOLE else plain

    def predict(self, x: Tensor) -> Tensor:
        return self.network(x)
