"""ClassRisk: base class of wrappers that replace the classification loss."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from dg_batchformer.algorithms.base import Metrics, Minibatches, TrainingSet, Validation
from dg_batchformer.algorithms.criterion import CountedCriterion, Criterion, check_balances, check_replaces
from dg_batchformer.errors import InputError
from dg_batchformer.wrappers.base import Wrapper


class ClassRisk(Wrapper):
    """Replaces the cross-entropy in the risk of an algorithm, with BatchFormer in both streams.

    Penalties do not change, also if a method computes them from a cross-entropy of its own. Mixup and MLDG do not pass
    the environments of samples; their losses use the counts summed over all training environments.

    Attributes:
        balances: whether the loss compensates class frequencies, so that ``class_balanced`` would do so twice.

    """

    acts_on = "risk"
    registered = False
    balances: ClassVar[bool] = True

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        name = type(self).__mro__[1].__name__  # without what it is around
        if self.inner.criterion is not None:
            raise InputError(
                f"{name} replaces the classification loss, and {self.inner_class.__name__} has one of its own; leave "
                "one of them out"
            )
        if self.balances:
            check_balances(name, hparams)
        check_replaces(name, hparams)
        self.inner.criterion = self.build_criterion(num_classes, num_domains)
        self.updates = 0

    def build_criterion(self, num_classes: int, num_domains: int) -> Criterion:
        """Build the loss."""
        raise NotImplementedError

    @property
    def criterion_inside(self) -> Criterion:
        """The loss that the wrapped algorithm uses."""
        assert self.inner.criterion is not None
        return self.inner.criterion

    def prepare(self, training: TrainingSet) -> None:
        super().prepare(training)
        if isinstance(self.criterion_inside, CountedCriterion):
            self.criterion_inside.prepare(training)

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        self.updates += 1
        return super().update(minibatches, unlabeled)

    def observe(self, step: int, validation: Validation, evaluate: Callable[[nn.Module], Validation]) -> None:
        if (
            self.updates > 1 and not self.criterion_inside.was_used
        ):  # DANN trains only its discriminator in some updates
            raise InputError(
                f"{type(self).__mro__[1].__name__} has no effect on {self.inner_class.__name__}, which computes its "
                "loss by other means than Algorithm.risk; leave it out"
            )
        super().observe(step, validation, evaluate)
