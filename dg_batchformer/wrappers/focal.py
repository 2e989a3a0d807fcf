"""Focal — Lin et al., 2017: reduce the weight of samples that are classified well."""

from torch import Tensor
from torch.nn import functional as F

from dg_batchformer.algorithms.criterion import Criterion
from dg_batchformer.hparams import HParam
from dg_batchformer.wrappers.criteria import ClassRisk

_LEAST = 1e-6


class FocalLoss(Criterion):
    """``-(1 - p_y)^gamma log(p_y)`` with the probability p_y of the label."""

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, logits: Tensor, y: Tensor, env: Tensor | None) -> Tensor:
        losses = F.cross_entropy(logits, y, reduction="none")
        left = (1 - (-losses).exp()).clamp_min(_LEAST)  # the gradient at 0 is infinite for gamma below 1
        return (left**self.gamma * losses).mean()


class Focal(ClassRisk):
    """Focal loss: weight the cross-entropy of a sample by ``(1 - p)^gamma``, with the probability p of its label.

    The loss does not depend on class counts. The default gamma is the paper's; MDLT uses 1, and 0 is the
    cross-entropy.
    """

    balances = False

    @classmethod
    def settings(cls, dataset: str) -> dict[str, HParam]:
        return {"focal_gamma": HParam(2.0, about="exponent of the weight", low=0)}

    def build_criterion(self, num_classes: int, num_domains: int) -> FocalLoss:
        return FocalLoss(self.hparams["focal_gamma"])
