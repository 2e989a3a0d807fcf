"""ERM++ — Teterwak et al., 2025: ERM with a warm-up of the classifier, and weight averaging."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dg_batchformer.algorithms.base import Metrics, Minibatches, descend
from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.hparams import HParam
from dg_batchformer.networks.batch_norm import has_live_batch_norm
from dg_batchformer.networks.batchformer import without_batchformer
from dg_batchformer.optim.groups import featurizers


class LARS(Optimizer):
    """Layer-wise adaptive rate scaling — You et al., 2017: step sizes are proportional to the norm of the weights.

    One-dimensional parameters (biases, normalization) are neither scaled nor decayed.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.9,
        trust: float = 0.001,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "trust": trust})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one optimizer step."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, group)

    def _step(self, parameter: Tensor, group: dict[str, Any]) -> None:
        direction = parameter.grad
        assert direction is not None
        if parameter.ndim > 1:
            direction = direction + group["weight_decay"] * parameter
            ratio = group["trust"] * parameter.norm() / direction.norm()
            direction = direction * torch.where(ratio.isfinite() & (ratio > 0), ratio, 1.0)
        momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
        momentum.mul_(group["momentum"]).add_(direction)
        parameter.sub_(group["lr"] * momentum)


class ERMPlusPlus(ERM):
    """ERM with a warm-up that trains only the classifier, and weights averaged from update 600 on.

    Predictions use the averaged network, without BatchFormer; its BatchNorm statistics, unless frozen, are updated with
    every batch.

    Differs from DomainBed: ``lars`` works (upstream raises TypeError), and counters are part of the checkpoint. The
    second stage of upstream's ``train_autolr`` (retraining on all data with the best learning rates) is not included.
    """

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        return {
            "linear_lr": HParam(5e-5, lambda rng: 10 ** rng.uniform(-5, -3.5), "learning rate of the warm-up", low=0),
            "linear_steps": HParam(500, about="warm-up updates of the classifier, minus one", low=0),
            "lars": HParam(False, about="use LARS instead of the optimizer"),
        }

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.check_trains_head()
        kind = LARS if hparams["lars"] else None
        self.optimizer = self.new_optimizer(self.network, kind=kind)
        self.linear_optimizer = self.new_optimizer(self.classifier, kind=kind, lr=hparams["linear_lr"])
        self.network_sma = copy.deepcopy(without_batchformer(self.network))
        for featurizer in featurizers(self.network_sma):
            featurizer.is_auxiliary = True  # follows the network, whatever wrappers do to it
        self.average_from = 600
        self.updates = self.averaged = 0

    @property
    def predictor(self) -> nn.Module:
        return self.network_sma

    def begin_from(self, state: Mapping[str, Tensor]) -> None:
        super().begin_from(state)
        without_batchformer(self.network).load_state_dict(state)

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        warm = self.updates > self.hparams["linear_steps"]
        x = torch.cat([x for x, _ in minibatches])
        y = torch.cat([y for _, y in minibatches])
        with torch.set_grad_enabled(warm):  # the warm-up trains only the classifier
            z = self.featurizer(x)
        loss = self.risk(self.classifier(z), y, num_domains=len(minibatches))
        descend(self.optimizer if warm else self.linear_optimizer, loss)
        self._average()
        if has_live_batch_norm(self.network_sma):
            with torch.no_grad():
                self.network_sma(self.split_streams(x, len(minibatches))[0])
        return {"loss": loss.detach()}

    @torch.no_grad()
    def _average(self) -> None:
        self.updates += 1
        if self.updates >= self.average_from:
            self.averaged += 1
        present = without_batchformer(self.network).state_dict()
        for name, average in self.network_sma.state_dict().items():
            if average.is_floating_point():
                average.lerp_(present[name], 1 / (1 + self.averaged))

    def predict(self, x: Tensor) -> Tensor:
        return self.network_sma(x)
