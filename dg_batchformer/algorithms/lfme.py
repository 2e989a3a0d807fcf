"""LFME — Chen et al., 2024: one network learns from experts of every domain."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dg_batchformer.algorithms.base import Metrics, Minibatches, descend
from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.hparams import HParam
from dg_batchformer.networks import Classifier, Featurizer


class LFME(ERM):
    """Learning from multiple experts: ERM plus the distance of logits from an expert's probabilities.

    Every training environment e has an expert, a network of its own that is trained on e alone. With q the logits of
    the target network (N, classes), and p_e the probabilities of e's expert, before its step, for the samples of e,
    the target minimizes its risk plus ``lfe_reg * mean((q - p_e)^2)`` over samples and classes. Only the target network
    predicts. Experts train on plain rows, without BatchFormer, and guide the logits of plain rows.

    An update costs two of ERM. Memory for weights is that of one network for every training environment plus one.
    """

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        return {"lfe_reg": HParam(1.0, lambda rng: 10 ** rng.uniform(-2, 1), "weight of the experts' guidance", low=0)}

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.experts = nn.ModuleList(self._expert(input_shape, num_classes) for _ in range(num_domains))
        self.expert_optimizers = [self.new_optimizer(expert) for expert in self.experts]

    def _expert(self, input_shape: Sequence[int], num_classes: int) -> nn.Module:
        featurizer = Featurizer(input_shape, self.hparams, attends=False)
        return nn.Sequential(
            featurizer, Classifier(featurizer.n_outputs, num_classes, self.hparams["nonlinear_classifier"])
        )

    def begin_from(self, state: Mapping[str, Tensor]) -> None:
        super().begin_from(state)
        for expert in self.experts:
            expert.load_state_dict(state)

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        num_domains = len(minibatches)
        guides = torch.cat([self._train_expert(env, x, y) for env, (x, y) in enumerate(minibatches)])
        y = torch.cat([y for _, y in minibatches])
        logits = self.network(torch.cat([x for x, _ in minibatches]))
        risk = self.risk(logits, y, num_domains)
        plain, _ = self.split_streams(logits, num_domains)
        penalty = F.mse_loss(plain, guides)
        descend(self.optimizer, risk + self.hparams["lfe_reg"] * penalty)
        return {"loss": risk.detach(), "penalty": penalty.detach()}

    def _train_expert(self, env: int, x: Tensor, y: Tensor) -> Tensor:
        """Train the expert of an environment; return its probabilities before the step, (n, num_classes)."""
        x, y = (self.split_streams(rows)[0] for rows in (x, y))
        logits = self.experts[env](x)
        probabilities = logits.detach().softmax(dim=1)
        descend(self.expert_optimizers[env], self._mean_loss(logits, y, 1, env))
        return probabilities
