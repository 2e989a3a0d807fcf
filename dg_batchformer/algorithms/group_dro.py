"""Group DRO — Sagawa et al., 2020: minimize the risk of the worst environment."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dg_batchformer.algorithms.base import Metrics, Minibatches, descend, forward_domains
from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.hparams import HParam


class GroupDRO(ERM):
    """Distributionally robust optimization over environments, whose weights grow exponentially with their risks.

    With BatchFormer, the risk of an environment, and so its weight, includes both streams.

    Differs from DomainBed: the weights are allocated up front, so that state dicts can be reloaded; one forward pass
    for all environments, which is equivalent unless BatchNorm is in training mode.
    """

    compares_domains = True

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        return {
            "groupdro_eta": HParam(
                1e-2, lambda rng: 10 ** rng.uniform(-3, -1), "step size of the environment weights", low=0
            )
        }

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.q: Tensor
        self.register_buffer("q", torch.ones(num_domains))

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        logits = forward_domains(self.network, minibatches)
        risks = self.risks(logits, [y for _, y in minibatches])
        self.q *= (self.hparams["groupdro_eta"] * risks.detach()).exp()
        self.q /= self.q.sum()
        loss = risks @ self.q
        descend(self.optimizer, loss)
        return {"loss": loss.detach()}
