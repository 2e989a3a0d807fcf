"""Adapters that run an unmodified class with DomainBed's signature as an Algorithm, with BatchFormer if possible."""

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
from dg_batchformer.networks.tuning import ALL
from dg_batchformer.optim.groups import featurizers, optimizers
from dg_batchformer.optim.recipe import Recipe, follows_recipe


class Checked(Algorithm):
    """Validates the return values of a plug-in's ``update`` and ``predict``; raises InputError for a wrong one."""

    registered = False

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.logits_shape = lambda x: (len(x), num_classes)  # a function, as checkpoints would store other attributes
        self._check_recipe()

    def _check_recipe(self) -> None:
        """Raise InputError for hparams of the recipe that somebody's code does not follow."""
        name, recipe = type(self).__name__, Recipe.of(self.hparams)
        asked = set(recipe.of_optimizers) - set(type(self).search_space("PACS"))  # those of its own are its affair
        smooths = asked & {"label_smoothing"}
        if smooths and isinstance(self, Pasted):
            raise InputError(f"{name} does not call Algorithm.risk, so label_smoothing would do nothing; leave it out")
        if asked - smooths and not all(follows_recipe(optimizer) for _, optimizer in optimizers(self)):
            raise InputError(
                f"{name} builds an optimizer of its own, which would not follow {', '.join(sorted(asked - smooths))}; "
                "build it by Algorithm.new_optimizer, or leave that out"
            )
        if recipe.tune != ALL and not featurizers(self):
            raise InputError(
                f"{name} builds no network by networks.Featurizer, so tune {recipe.tune} would do nothing; set tune all"
            )

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        metrics: object = super().update(minibatches, unlabeled)
        name, wanted = type(self).__name__, "a dict of names to numbers, such as {'loss': loss.item()}"
        if not isinstance(metrics, Mapping):
            raise InputError(f"{name}.update returns {_kind(metrics)}; it must return {wanted}")
        for key, value in metrics.items():
            if not isinstance(key, str) or not _is_number(value):
                raise InputError(f"{name}.update returns {_kind(value)} as {key!r:.50}; it must return {wanted}")
        return dict(metrics)

    def predict(self, x: Tensor) -> Tensor:
        logits: object = super().predict(x)
        if not isinstance(logits, Tensor) or logits.shape != self.logits_shape(x):
            wanted = f"logits {self.logits_shape(x)}, one row per image and one column per class"
            raise InputError(f"{type(self).__name__}.predict returns {_kind(logits)}; it must return {wanted}")
        return logits


def _is_number(value: object) -> bool:
    """Return whether a value can be recorded as a number; tensors and arrays with one element can."""
    if isinstance(value, Tensor):
        return value.numel() == 1 and not value.is_complex()
    return isinstance(value, Real) or (isinstance(value, np.ndarray) and value.size == 1)


def _kind(value: object) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"{value!r:.50}"


class Pasted(Algorithm):
    """An algorithm that is unaware of BatchFormer's twin stream: it gets plain rows and twins as one batch.

    Its cross-entropy is then the mean of both streams, as in BatchFormer, and its statistics are over both. Settings
    that would train incorrectly raise InputError.

    Attributes:
        written: the original class.

    """

    registered = False
    written: ClassVar[type]

    def check_pairing(self) -> None:
        name, hparams = type(self).__name__, self.hparams
        own = "use Algorithm.risk for other settings"
        if not hparams["bf_shared"] or hparams["bf_loss_weight"] not in (0, 0.5):
            raise InputError(
                f"{name} does not tell plain rows from twins, so BF needs bf_loss_weight 0.5 and bf_shared true, got "
                f"{hparams['bf_loss_weight']} and {str(hparams['bf_shared']).lower()}; {own}"
            )
        encoders = batchformers(self)
        if hparams["bf_lr_scale"] != 1 and _shares_a_group(self, encoders):
            raise InputError(
                f"{name} puts the encoder into one optimizer group with its networks, so bf_lr_scale must be 1, got "
                f"{hparams['bf_lr_scale']}; build the optimizer with Algorithm.new_optimizer for other values"
            )
        if hparams["batch_size"] % 2 and "::2]" in source_of(self.written):
            raise InputError(
                f"{name} takes every second row, so with batch_size {hparams['batch_size']} a sample and its twin fall "
                "into different halves; give an even batch_size"
            )
        for encoder in encoders:
            encoder.compares_rows = True

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        paired = {encoder.paired_rows for encoder in batchformers(self)}
        metrics = super().update(minibatches, unlabeled)
        if {encoder.paired_rows for encoder in batchformers(self)} != paired:
            raise InputError(
                f"{type(self).__name__} builds a featurizer in update, whose BatchFormer is not paired; build it in "
                "__init__, or copy one with copy.deepcopy"
            )
        return metrics


class Foreign(Algorithm):
    """An adapter that holds an instance of a third-party class and delegates to it.

    Attributes:
        written: the original class.

    """

    registered = False
    written: ClassVar[type]

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.foreign = self.written(input_shape, num_classes, num_domains, hparams)

    @property
    def network(self) -> nn.Module:
        """The whole module, as any part of it may be used by ``predict``."""
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.predict(x)

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        return self.foreign.update(minibatches, unlabeled)

    def predict(self, x: Tensor) -> Tensor:
        return self.foreign.predict(x)


def _shares_a_group(algorithm: nn.Module, encoders: Iterable[nn.Module]) -> bool:
    """Return whether an optimizer group mixes parameters of encoders with others."""
    theirs = {id(parameter) for encoder in encoders for parameter in encoder.parameters()}
    values = [value for module in algorithm.modules() for value in vars(module).values()]
    groups = [group["params"] for value in values if isinstance(value, Optimizer) for group in value.param_groups]
    return any(0 < sum(id(parameter) in theirs for parameter in group) < len(group) for group in groups)


def source_of(written: type) -> str:
    """Return the source code of a class and its third-party bases, as far as it is available."""
    texts = []
    for base in written.__mro__:
        if not base.__module__.startswith(("dg_batchformer.", "torch.", "builtins")):
            with suppress(OSError, TypeError):  # interactive, or compiled
                texts.append(inspect.getsource(base))
    return "\n".join(texts)
