"""Base classes of wrappers that average weights."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from dg_batchformer.algorithms.base import Algorithm, Metrics, Minibatches
from dg_batchformer.networks.batch_norm import has_live_batch_norm, reestimate_batch_norm
from dg_batchformer.wrappers.base import Wrapper
from dg_batchformer.wrappers.loss_valley import Average

_PARAMETERS: WeakKeyDictionary[nn.Module, list[nn.Parameter]] = WeakKeyDictionary()  # of every predictor


class WeightAveraging(Wrapper):
    """Base class for averaging the predictor's weights, which exclude BatchFormer and other training-only modules."""

    acts_on = "weights"
    registered = False

    def weights(self) -> list[nn.Parameter]:
        """Return the parameters of the predictor."""
        predictor = self.predictor
        if predictor not in _PARAMETERS:  # searching all its modules after every update would take too long
            _PARAMETERS[predictor] = list(predictor.parameters())
        return _PARAMETERS[predictor]

    @torch.no_grad()
    def set_weights(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite the weights of the predictor."""
        torch._foreach_copy_(list[Tensor](self.weights()), list(tensors))

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

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.average = Average()
        self.updates = 0

    def memory(self) -> float:
        """Return the factor on the weight of earlier iterates: 0 restarts the average, 1 weighs all equally.

        ``updates`` is the index of the update just made, from 0.
        """
        raise NotImplementedError

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        metrics = self.inner.update(minibatches, unlabeled)
        memory = self.memory()
        if memory == 0 or self.updates == 0:
            self.average.start = self.updates
        self.average.weight *= memory
        self.average.absorb(self.weights())
        self.average.end = self.updates
        self.updates += 1
        return metrics

    def predict(self, x: Tensor) -> Tensor:
        if not (self.predicts_returned and self.updates):
            return super().predict(x)
        with self.weights_set(self.average.tensors):
            return super().predict(x)

    def finalize(self, batches: Iterable[Tensor]) -> Algorithm:
        super().finalize(batches)
        self.become(self.average, batches)
        return self
