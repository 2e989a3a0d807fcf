"""MyAlgorithm (Author et al., 2030): ERM plus a penalty on the logits."""

import torch
from torch import Tensor

from dg_batchformer.algorithms.base import Metrics, Minibatches, descend
from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.hparams import HParam


def penalty_on(logits: Tensor) -> Tensor:
    """Return the mean squared logit, (N, num_classes) -> ()."""
    return logits.square().mean()


class MyAlgorithm(ERM):
    """ERM plus a penalty on the logits."""

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        weight = HParam(0.1, lambda rng: 10 ** rng.uniform(-3, 1), "weight of the penalty", low=0)
        return {"my_algorithm_weight": weight}

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        x = torch.cat([x for x, _ in minibatches])
        y = torch.cat([y for _, y in minibatches])
        logits = self.network(x)
        risk = self.risk(logits, y, num_domains=len(minibatches))
        plain, _ = self.split_streams(logits, num_domains=len(minibatches))
        penalty = penalty_on(plain)
        descend(self.optimizer, risk + self.hparams["my_algorithm_weight"] * penalty)
        return {"loss": risk.detach(), "penalty": penalty.detach()}
