"""A class with DomainBed's signature, unmodified, as an Algorithm; what BatchFormer can do around such code."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from dg_batchformer.algorithms import Algorithm
from dg_batchformer.algorithms.base import Metrics, Minibatches
from dg_batchformer.errors import InputError
from dg_batchformer.networks.batchformer import batchformers


class Checked(Algorithm):
    """Holds what somebody's methods return against what an algorithm returns: the first that differs is named."""

    registered = False

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.logits_shape = lambda x: (len(x), num_classes)  # a function is no state, which checkpoints would keep

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        metrics: object = super().update(minibatches, unlabeled)
        name, wanted = type(self).__name__, "a dict of names to numbers, such as {'loss': loss.item()}"
        if not isinstance(metrics, Mapping):
            raise InputError(f"{name}.update returns {_kind(metrics)}; it has to return {wanted}")
        for key, value in metrics.items():
            if not isinstance(key, str) or not _is_number(value):
                raise InputError(f"{name}.update returns {_kind(value)} as {key!r:.50}; it has to return {wanted}")
        return dict(metrics)

    def predict(self, x: Tensor) -> Tensor:
        logits: object = super().predict(x)
        if not isinstance(logits, Tensor) or logits.shape != self.logits_shape(x):
            wanted = f"logits {self.logits_shape(x)}, a row for each image and a column for each class"
            raise InputError(f"{type(self).__name__}.predict returns {_kind(logits)}; it has to return {wanted}")
        return logits


def _is_number(value: object) -> bool:
    """Return whether a mean over values of this kind can be recorded; 0-dim tensors and arrays are numbers."""
    if isinstance(value, Tensor):
        return value.numel() == 1 and not value.is_complex()
    return isinstance(value, Real) or (isinstance(value, np.ndarray) and value.size == 1)


def _kind(value: object) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"{value!r:.50}"


class Pasted(Algorithm):
    """Code that does not know of BatchFormer's twins: plain rows and twins are rows alike to it.

    Then cross-entropy is the mean of both streams, as BatchFormer has it, and statistics are over both. What would
    come out wrong is refused.

    Attributes:
        written: the class as it was written.

    """

    registered = False
    written: ClassVar[type]

    def check_pairing(self) -> None:
        name, hparams = type(self).__name__, self.hparams
        own = "take risks by Algorithm.risk to have it"
        if not hparams["bf_shared"] or hparams["bf_loss_weight"] not in (0, 0.5):
            raise InputError(
                f"{name} takes plain rows and twins for rows alike, so under BF bf_loss_weight is 0.5 and bf_shared "
                f"true, got {hparams['bf_loss_weight']} and {str(hparams['bf_shared']).lower()}; {own}"
            )
        encoders = batchformers(self)
        if hparams["bf_lr_scale"] != 1 and _shares_a_group(self, encoders):
            raise InputError(
                f"{name} has the encoder in one optimizer group with its networks, so bf_lr_scale is 1 there, got "
                f"{hparams['bf_lr_scale']}; build the optimizer by Algorithm.new_optimizer to have it"
            )
        if hparams["batch_size"] % 2 and "::2]" in _source(self.written):
            raise InputError(
                f"{name} takes every second row, and of minibatches of {hparams['batch_size']} rows and as many twins "
                "that puts a sample into both halves; give an even batch_size"
            )
        for encoder in encoders:
            encoder.compares_rows = True

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        paired = {encoder.paired_rows for encoder in batchformers(self)}
        metrics = super().update(minibatches, unlabeled)
        if {encoder.paired_rows for encoder in batchformers(self)} != paired:
            raise InputError(
                f"{type(self).__name__} builds a featurizer within its update, whose BatchFormer is not paired; build "
                "it in __init__, or copy one by copy.deepcopy"
            )
        return metrics


class Foreign(Algorithm):
    """An algorithm whose class is none of ours: it holds one, and asks it.

    Attributes:
        written: the class as it was written.

    """

    registered = False
    written: ClassVar[type]

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.foreign = self.written(input_shape, num_classes, num_domains, hparams)

    @property
    def network(self) -> nn.Module:
        """All of it: which of its modules ``predict`` uses is its own affair."""
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.predict(x)

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        return self.foreign.update(minibatches, unlabeled)

    def predict(self, x: Tensor) -> Tensor:
        return self.foreign.predict(x)


def _shares_a_group(algorithm: nn.Module, encoders: Iterable[nn.Module]) -> bool:
    """Return whether an optimizer has parameters of encoders and others in one group."""
    theirs = {id(parameter) for encoder in encoders for parameter in encoder.parameters()}
    values = [value for module in algorithm.modules() for value in vars(module).values()]
    groups = [group["params"] for value in values if isinstance(value, Optimizer) for group in value.param_groups]
    return any(0 < sum(id(parameter) in theirs for parameter in group) < len(group) for group in groups)


def _source(written: type) -> str:
    """Return the text of a class and of those it builds on, which are none of ours, as far as there is one."""
    texts = []
    for base in written.__mro__:
        if not base.__module__.startswith(("dg_batchformer.", "torch.", "builtins")):
            with suppress(OSError, TypeError):  # typed in, or compiled
                texts.append(inspect.getsource(base))
    return "\n".join(texts)
