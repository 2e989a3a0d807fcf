"""BSoftmax — Ren et al., 2020: balanced softmax, a cross-entropy that knows how frequent classes are."""

from torch import Tensor
from torch.nn import functional as F

from dg_batchformer.algorithms.criterion import CountedCriterion
from dg_batchformer.wrappers.criteria import ClassRisk


class BalancedSoftmaxLoss(CountedCriterion):
    """``-log(n_y exp(z_y) / sum_k n_k exp(z_k))`` with the counts n of the sample's environment.

    A class without an image in an environment counts as one with a single image, as in MDLT.
    """

    def forward(self, logits: Tensor, y: Tensor, env: Tensor | None) -> Tensor:
        return F.cross_entropy(logits + self.rows_of(self.counts.clamp_min(1).log(), env), y)


class BSoftmax(ClassRisk):
    """Balanced softmax: add the logarithm of class counts to the logits during training.

    The loss of a sample with logits z and label y is ``-log(n_y exp(z_y) / sum_k n_k exp(z_k))``, where n_k is the
    number of training images of class k in the environment of the sample, as in MDLT (Yang et al., 2022).
    """

    def build_criterion(self, num_classes: int, num_domains: int) -> BalancedSoftmaxLoss:
        return BalancedSoftmaxLoss(num_classes, num_domains)
