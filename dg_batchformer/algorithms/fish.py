"""Fish — Shi et al., 2022: move towards where a walk through the domains leads, which matches their gradients."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dg_batchformer.algorithms.base import Metrics, Minibatches, descend
from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.hparams import HParam


class Fish(ERM):
    """Gradient matching, first order: a clone takes one step per environment, and the network follows part of the way.

    Under BatchFormer the clone carries the encoder, which follows it like everything else.

    Differs from DomainBed: the clone is copied in memory instead of built anew and is no part of the state, so that
    a state dict reloads.
    """

    compares_domains = True
    trains_clones = True
    attends = "per_domain"

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        return {"meta_lr": HParam(0.5, lambda rng: rng.choice([0.05, 0.1, 0.5]), "part of the way", low=0)}

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.walk_state: dict[str, Any] | None = None  # of the clones' Adam, which goes on from clone to clone

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        clone = copy.deepcopy(self.network)
        walk = self.new_optimizer(clone)
        if self.walk_state is not None:
            walk.load_state_dict(self.walk_state)
        for x, y in minibatches:
            loss = self.risk(clone(x), y)
            descend(walk, loss)
        self.walk_state = walk.state_dict()
        self._follow(clone)
        return {"loss": loss.detach()}

    @torch.no_grad()
    def _follow(self, clone: torch.nn.Module) -> None:
        for value, led in zip(self.network.state_dict().values(), clone.state_dict().values(), strict=True):
            if value.is_floating_point():
                value.add_(self.hparams["meta_lr"] * (led - value))
            else:
                value.copy_(led)
