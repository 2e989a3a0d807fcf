"""IGA — Koyama & Yamaguchi, 2020: align gradients across environments."""

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from dg_batchformer.algorithms.base import Metrics, Minibatches, descend
from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.hparams import HParam
from dg_batchformer.networks.batchformer import without_batchformer
from dg_batchformer.networks.freezing import trainable


class IGA(ERM):
    """Inter-environmental gradient alignment: penalize distances of gradients to their mean over environments.

    With BatchFormer, the risk includes both streams, and the aligned gradients are those of plain rows.
    """

    compares_domains = True
    attends = "per_domain"
    differentiates_twice = True

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        return {"penalty": HParam(1000.0, lambda rng: 10 ** rng.uniform(1, 5), "weight of the penalty", low=0)}

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        parameters = trainable(without_batchformer(self.network))
        with sdpa_kernel(SDPBackend.MATH):  # attention with double backward, for transformers
            outputs = [(self.network(x), y) for x, y in minibatches]
        risks = [self.risk(logits, y, env=env) for env, (logits, y) in enumerate(outputs)]
        aligned = risks
        if self.streams > 1:
            aligned = [self.plain_risk(logits, y, env=env) for env, (logits, y) in enumerate(outputs)]
        gradients = [torch.autograd.grad(one, parameters, create_graph=True, materialize_grads=True) for one in aligned]
        risk = torch.stack(risks).mean()
        means = [torch.stack(by_env).mean(dim=0).detach() for by_env in zip(*gradients, strict=True)]
        distances = [
            (own - mean).square().sum() for gradient in gradients for own, mean in zip(gradient, means, strict=True)
        ]
        penalty = torch.stack(distances).sum()
        descend(self.optimizer, risk + self.hparams["penalty"] * penalty)
        return {"loss": risk.detach(), "penalty": penalty.detach()}
