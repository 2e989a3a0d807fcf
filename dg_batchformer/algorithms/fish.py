"""Fish — Shi et al., 2022: align gradients by interpolating toward weights trained on one domain after another."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dg_batchformer.algorithms.base import Metrics, Minibatches, descend
from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.hparams import HParam


class Fish(ERM):
    """First-order gradient matching: a clone takes one step per environment, and the network moves toward it.

    With BatchFormer, the clone includes the encoder, which is updated in the same way.

    Differs from DomainBed: the clone is a copy instead of a newly built network, and not part of the state, so that
    state dicts can be reloaded.
    """

    compares_domains = True
    trains_clones = True
    attends = "per_domain"

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        return {
            "meta_lr": HParam(
                0.5, lambda rng: rng.choice([0.05, 0.1, 0.5]), "interpolation factor toward the clone", low=0
            )
        }

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.walk_state: dict[str, Any] | None = None  # state of the clones' Adam, carried from clone to clone

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        clone = copy.deepcopy(self.network)
        walk = self.new_optimizer(clone)
        if self.walk_state is not None:
            walk.load_state_dict(self.walk_state)
        for env, (x, y) in enumerate(minibatches):
            loss = self.risk(clone(x), y, env=env)
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
