"""Wrapper: an Algorithm around ``inner``, which relies only on the Algorithm interface."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from dg_batchformer.algorithms.base import Algorithm, Metrics, Minibatches, TrainingSet, Validation
from dg_batchformer.hparams import HParam

ACTS_ON = ("risk", "maps", "features", "parameters", "weights")  # what a wrapper acts on, in order of application


class Wrapper(Algorithm):
    """Base class of wrappers, which delegates everything to ``inner``.

    Attributes:
        acts_on: one of ACTS_ON; wrappers apply in that order, at most one for each.
        inner_class: the wrapped class; set by ``around``.
        predicts_returned: whether ``predict`` uses the model that the run would return now, with current BatchNorm
            statistics, instead of the last iterate. DomainBed's loop needs this, as it only calls ``predict``.

    """

    registered = False
    acts_on: ClassVar[str]
    inner_class: ClassVar[type[Algorithm]]
    predicts_returned: ClassVar[bool] = False

    @classmethod
    def around(cls, inner_class: type[Algorithm]) -> type["Wrapper"]:
        """Return a subclass of this wrapper around an algorithm class."""
        facts = (
            "min_domains",
            "compares_domains",
            "shapes_features",
            "batch_dependent",
            "differentiates_twice",
            "trains",
            "trains_clones",
        )
        passed_on = {name: getattr(inner_class, name) for name in facts}
        passed_on["needs_pixels"] = cls.needs_pixels or inner_class.needs_pixels
        return type(cls.__name__, (cls,), {**passed_on, "inner_class": inner_class, "__doc__": cls.__doc__})

    @classmethod
    def order(cls) -> int:
        """Return the position of this wrapper's stage, from the inside out."""
        return ACTS_ON.index(cls.acts_on)

    @classmethod
    def settings(cls, dataset: str) -> dict[str, HParam]:
        """Return the wrapper's hparams; their names start with its prefix."""
        return {}

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        return {**cls.inner_class.search_space(dataset), **cls.settings(dataset)}

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        num_domains: int,
        hparams: dict[str, Any],
        inner: Algorithm | None = None,
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.inner = self.inner_class(input_shape, num_classes, num_domains, hparams) if inner is None else inner

    @classmethod
    def observes(cls) -> bool:
        """Return whether the wrapper itself uses the results of evaluations."""
        return cls.observe is not Wrapper.observe

    def check_pairing(self) -> None:
        self.inner.check_pairing()

    def prepare(self, training: TrainingSet) -> None:
        self.inner.prepare(training)

    def materialize(self, step: int) -> None:
        self.inner.materialize(step)

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        return self.inner.update(minibatches, unlabeled)

    def begin_update(self, step: int, steps: int) -> None:
        self.inner.begin_update(step, steps)

    def predict(self, x: Tensor) -> Tensor:
        return self.inner.predict(x)

    @property
    def predictor(self) -> nn.Module:
        return self.inner.predictor

    def begin_from(self, state: Mapping[str, Tensor]) -> None:
        self.inner.begin_from(state)

    def observe(self, step: int, validation: Validation, evaluate: Callable[[nn.Module], Validation]) -> None:
        self.inner.observe(step, validation, evaluate)
        self.finished = self.inner.finished

    def finalize(self, batches: Iterable[Tensor]) -> Algorithm:
        self.inner = self.inner.finalize(batches)
        self.summary = self.inner.summary
        return self
