"""QT-DoG — Javed et al., 2024: train with quantized weights, whose noise leads to flat minima."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dg_batchformer.algorithms.base import Metrics, Minibatches, TrainingSet
from dg_batchformer.errors import InputError
from dg_batchformer.hparams import HParam
from dg_batchformer.optim.groups import featurizers
from dg_batchformer.wrappers.base import Wrapper

_LEAST = 0.1  # share of the predictor's weights that must be those of convolutions


def step_size(weights: Tensor, bits: int) -> Tensor:
    """Compute the distance of levels for every output channel, as LSQ begins with, (C, ...) -> (C, 1, ...)."""
    mean = weights.abs().mean(dim=tuple(range(1, weights.ndim)), keepdim=True)
    return (2 * mean / (2 ** (bits - 1) - 1) ** 0.5).clamp_min(1e-12)


def quantized(weights: Tensor, step: Tensor, bits: int) -> Tensor:
    """Round weights to the nearest of 2^bits levels, the multiples of ``step`` from -2^(bits-1) to 2^(bits-1) - 1."""
    return step * (weights / step).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).round()


class QTDoG(Wrapper):
    """Quantization-aware training: from a share of the updates on, all convolutions compute with quantized weights.

    The weights v of a convolution, which are not quantized, follow its quantized weights ``w = Q(v)``: with the
    change d of w in an update of the algorithm, ``v + d`` is quantized next. This is the straight-through estimator
    for any algorithm and optimizer, also for one that weighs w (weight decay acts on w) or trains copies of w. Levels
    are those of LSQ (Esser et al., 2020) at the beginning: a step for every output channel.

    Networks always hold quantized weights, so these are evaluated, kept and averaged. An average of several, as of
    SWAD, has more levels. Biases, norms, linear layers, BatchFormer and auxiliary networks, such as MIRO's oracle, are
    not quantized.

    Differs from the authors' release: there, the optimizer lacks the parameters of quantized layers, so that v stays
    as it was when quantization began. Here, v is trained, as in the paper; the steps are kept, as in the release.
    """

    acts_on = "parameters"
    needs_pixels = "QTDoG quantizes the convolutions of the frozen part too"

    @classmethod
    def settings(cls, dataset: str) -> dict[str, HParam]:
        return {
            "qt_bits": HParam(7, about="bits of a weight", low=2, high=16),
            "qt_start": HParam(0.4, about="share of the updates before quantization begins", low=0, high=1),
        }

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.updates = self.start = 0
        self.latent, self.steps = nn.ParameterList(), nn.ParameterList()
        for weight in self._weights():
            self.latent.append(nn.Parameter(weight.detach().clone(), requires_grad=False))
            self.steps.append(nn.Parameter(step_size(weight.detach(), self.hparams["qt_bits"]), requires_grad=False))
        share = sum(map(Tensor.numel, self.latent)) / sum(map(Tensor.numel, self.predictor.parameters()))
        if share < _LEAST:
            raise InputError(
                f"QTDoG quantizes the weights of convolutions, but these are {share:.0%} of the network with backbone "
                f"{hparams.get('backbone', 'auto')}; use a convolutional backbone"
            )

    def prepare(self, training: TrainingSet) -> None:
        super().prepare(training)
        self.start = round(self.hparams["qt_start"] * training.steps)

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        if self.updates == self.start:
            self._begin()
        metrics = super().update(minibatches, unlabeled)
        if self.updates >= self.start:
            self._follow()
        self.updates += 1
        return metrics

    @torch.no_grad()
    def _begin(self) -> None:
        bits = self.hparams["qt_bits"]
        for weight, latent, step in zip(self._weights(), self.latent, self.steps, strict=True):
            latent.copy_(weight)
            step.copy_(step_size(weight, bits))
            weight.copy_(quantized(latent, step, bits))

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the latent weights as the quantized ones have moved, and quantize them again."""
        bits = self.hparams["qt_bits"]
        for weight, latent, step in zip(self._weights(), self.latent, self.steps, strict=True):
            latent += weight - quantized(latent, step, bits)
            weight.copy_(quantized(latent, step, bits))

    def _weights(self) -> Iterator[Tensor]:
        """Yield the weights of all convolutions, without those of auxiliary networks."""
        auxiliary = [featurizer for featurizer in featurizers(self.inner) if featurizer.is_auxiliary]
        ignored = {module for featurizer in auxiliary for module in featurizer.modules()}
        convolutions = (module for module in self.inner.modules() if isinstance(module, nn.Conv2d))
        return (convolution.weight for convolution in convolutions if convolution not in ignored)
