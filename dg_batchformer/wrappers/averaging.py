"""Base classes of wrappers that average weights."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from dg_batchformer.algorithms.base import Algorithm, Metrics, Minibatches, Validation
from dg_batchformer.networks.batch_norm import has_live_batch_norm, reestimate_batch_norm
from dg_batchformer.optim.groups import featurizers
from dg_batchformer.wrappers.base import Wrapper
from dg_batchformer.wrappers.loss_valley import Average, check_lengths

_PARAMETERS: WeakKeyDictionary[nn.Module, list[nn.Parameter]] = WeakKeyDictionary()  # of predictors, by network


class WeightAveraging(Wrapper):
    """Base class for averaging the predictor's weights, which exclude BatchFormer and other training-only modules.

    An average follows the updates of the wrapped algorithm without changing them, so several averages can follow the
    same algorithm. Subclasses override ``start_average``, the methods below it that they need, and ``finalize``.

    Args:
        inner: the algorithm to follow; None builds a new one.

    """

    acts_on = "weights"
    registered = False

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        num_domains: int,
        hparams: dict[str, Any],
        inner: Algorithm | None = None,
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams, inner)
        self.updates = 0
        self.start_average()

    @classmethod
    def observes(cls) -> bool:
        return cls.observe_average is not WeightAveraging.observe_average

    def start_average(self) -> None:
        """Set up the state of the average."""
        raise NotImplementedError

    def before_update(self) -> None:
        """Follow the algorithm before an update; ``updates`` is the index of the update, from 0."""

    def after_update(self) -> None:
        """Follow the algorithm after an update; ``updates`` is the index of the update, from 0."""

    def observe_average(self, validation: Validation, evaluate: Callable[[nn.Module], Validation]) -> None:
        """Receive the validation result of the current model; arguments as in ``Algorithm.observe``."""

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        with self.following():
            return self.inner.update(minibatches, unlabeled)

    @contextmanager
    def following(self) -> Iterator[None]:
        """Follow an update of the wrapped algorithm that is made inside the context."""
        self.before_update()
        yield
        self.after_update()
        self.updates += 1

    def observe(self, step: int, validation: Validation, evaluate: Callable[[nn.Module], Validation]) -> None:
        super().observe(step, validation, evaluate)
        self.observe_average(validation, evaluate)

    def weights(self) -> list[nn.Parameter]:
        """Return the parameters of the predictor that updates can change: an average of frozen ones is themselves."""
        algorithm, changes_all = self.inner, False
        while isinstance(algorithm, Wrapper):
            changes_all |= algorithm.acts_on == "parameters"
            algorithm = algorithm.inner
        network = algorithm.predictor  # wrappers may return a new view of it every time
        if network not in _PARAMETERS:  # searching all its modules after every update would take too long
            found = featurizers(self.predictor)
            fixed = {id(featurizer.get_parameter(name)) for featurizer in found for name in featurizer.fixed}
            parameters = self.predictor.parameters()
            _PARAMETERS[network] = [weight for weight in parameters if changes_all or id(weight) not in fixed]
        return _PARAMETERS[network]

    @torch.no_grad()
    def set_weights(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite the weights of the predictor; raise InputError for a list of another length."""
        weights = list[Tensor](self.weights())
        check_lengths(tensors, weights)
        torch._foreach_copy_(weights, list(tensors))

    @contextmanager
    def weights_set(self, tensors: Sequence[Tensor]) -> Iterator[None]:
        """Use other weights inside the context; then restore the current ones."""
        present = [weight.detach().clone() for weight in self.weights()]
        self.set_weights(tensors)
        try:
            yield
        finally:
            self.set_weights(present)

    def become(self, average: Average, batches: Iterable[Tensor]) -> None:
        """Load averaged weights permanently, and record their range."""
        self.summary = {**self.summary, "averaged_from": average.start, "averaged_to": average.end}
        self.take(average.tensors, batches)

    def take(self, tensors: Sequence[Tensor], batches: Iterable[Tensor]) -> None:
        """Load weights permanently, and re-estimate live BatchNorm statistics."""
        self.set_weights(tensors)
        if has_live_batch_norm(self.predictor):
            reestimate_batch_norm(self.predictor, batches)


class MovingAverage(WeightAveraging):
    """Base class of running averages over updates; subclasses define the decay.

    Training and its records are those of the wrapped algorithm. The average is evaluated in an extra final record, with
    its first and last update in ``averaged_from`` and ``averaged_to``.
    """

    registered = False

    def start_average(self) -> None:
        self.average = Average()

    def memory(self) -> float:
        """Return the factor on the weight of earlier iterates: 0 restarts the average, 1 weighs all equally."""
        raise NotImplementedError

    def after_update(self) -> None:
        memory = self.memory()
        if memory == 0 or self.updates == 0:
            self.average.start = self.updates
        self.average.weight *= memory
        self.average.absorb(self.weights())
        self.average.end = self.updates

    def predict(self, x: Tensor) -> Tensor:
        if not (self.predicts_returned and self.updates):
            return super().predict(x)
        with self.weights_set(self.average.tensors):
            return super().predict(x)

    def finalize(self, batches: Iterable[Tensor]) -> Algorithm:
        super().finalize(batches)
        self.become(self.average, batches)
        return self
