"""ReWeight — Yang et al., 2022 (MDLT): weight samples by inverse class frequency."""

from dg_batchformer.algorithms.criterion import ReweightedLoss
from dg_batchformer.wrappers.criteria import ClassRisk


class ReWeight(ClassRisk):
    """Inverse-frequency weights: rare classes of an environment have a larger weight in the loss.

    The loss of an environment is ``sum_i w_i l_i / sum_i w_i`` over the samples of its minibatch, with cross-entropies
    l_i and ``w_i = 1 / n``, where n is the number of training images of the sample's class in the environment. The
    losses of environments are averaged.
    """

    def build_criterion(self, num_classes: int, num_domains: int) -> ReweightedLoss:
        return ReweightedLoss(num_classes, num_domains)
