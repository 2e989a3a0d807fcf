"""SD — Pezeshki et al., 2021: penalize large logits, so that dominant features do not suppress others."""

import torch
from torch import Tensor

from dg_batchformer.algorithms.base import Metrics, Minibatches, descend
from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.hparams import HParam


class SD(ERM):
    """Spectral decoupling: ERM plus the mean squared logit."""

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        return {"sd_reg": HParam(0.1, lambda rng: 10 ** rng.uniform(-5, -1), "weight of the squared logits", low=0)}

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        x = torch.cat([x for x, _ in minibatches])
        y = torch.cat([y for _, y in minibatches])
        logits = self.network(x)
        risk = self.risk(logits, y, num_domains=len(minibatches))
        plain, _ = self.split_streams(logits, num_domains=len(minibatches))
        penalty = plain.square().mean()
        descend(self.optimizer, risk + self.hparams["sd_reg"] * penalty)
        return {"loss": risk.detach(), "penalty": penalty.detach()}
