"""Base class of penalties with an annealing step: IRM, VREx, IB_ERM, IB_IRM."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from dg_batchformer.algorithms.base import descend
from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.hparams import HParam


class Anneal(NamedTuple):
    """Default weight of a penalty, and its weight before the annealing step."""

    weight: float
    before: float


class AnnealedPenalty(ERM):
    """ERM plus penalties whose weights change after a number of updates; each change resets Adam.

    A subclass lists its penalties; penalty ``name`` has the hparams ``{name}_lambda`` and
    ``{name}_penalty_anneal_iters``.
    """

    registered = False
    penalties: ClassVar[Mapping[str, Anneal]]

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        space = {}
        for name, anneal in cls.penalties.items():
            space[f"{name}_lambda"] = HParam(
                anneal.weight, lambda rng: 10 ** rng.uniform(-1, 5), "weight of the penalty", low=0
            )
            space[f"{name}_penalty_anneal_iters"] = HParam(
                500, lambda rng: 10 ** rng.uniform(0, 4), "updates before the penalty gets that weight", low=0
            )
        return space

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.updates = 0

    def descend_with(self, risk: Tensor, **penalties: Tensor) -> Tensor:
        """Take one step on the risk plus the weighted penalties; return that loss, detached."""
        jumps = {name: self.hparams[f"{name}_penalty_anneal_iters"] for name in penalties}
        if self.updates in jumps.values():
            self.optimizer = self.new_optimizer(self.network)  # gradient magnitudes change here
        loss = risk
        for name, penalty in penalties.items():
            jumped = self.updates >= jumps[name]
            loss = loss + (self.hparams[f"{name}_lambda"] if jumped else self.penalties[name].before) * penalty
        descend(self.optimizer, loss)
        self.updates += 1
        return loss.detach()
