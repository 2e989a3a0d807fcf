"""What IRM and VREx share: a penalty of weight 1 that jumps to its lambda after a number of updates."""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from dg_batchformer.algorithms.base import descend
from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.hparams import HParam


class AnnealedPenalty(ERM):
    """ERM plus a penalty; Adam starts anew at the jump, whose gradients are of another size.

    A subclass names its hparams by ``prefix``: ``{prefix}_lambda`` and ``{prefix}_penalty_anneal_iters``.
    """

    registered = False
    prefix: ClassVar[str]
    default_lambda: ClassVar[float]

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        return {
            f"{cls.prefix}_lambda": HParam(
                cls.default_lambda, lambda rng: 10 ** rng.uniform(-1, 5), "weight of the penalty", low=0
            ),
            f"{cls.prefix}_penalty_anneal_iters": HParam(
                500, lambda rng: 10 ** rng.uniform(0, 4), "updates before the penalty has that weight", low=0
            ),
        }

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.updates = 0

    def descend_with(self, risk: Tensor, penalty: Tensor) -> Tensor:
        """Take one step down risk + weight * penalty; return that sum, detached."""
        anneal = self.hparams[f"{self.prefix}_penalty_anneal_iters"]
        weight = self.hparams[f"{self.prefix}_lambda"] if self.updates >= anneal else 1.0
        if self.updates == anneal:
            self.optimizer = self.new_optimizer(self.network)
        loss = risk + weight * penalty
        descend(self.optimizer, loss)
        self.updates += 1
        return loss.detach()
