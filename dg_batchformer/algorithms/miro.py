"""MIRO — Cha et al., 2022: keep features close to those of the pretrained network."""

from collections.abc import Mapping, Sequence
from math import expm1, log
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dg_batchformer.algorithms.base import Metrics, Minibatches
from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.errors import InputError
from dg_batchformer.hparams import HParam
from dg_batchformer.networks import Featurizer
from dg_batchformer.networks.batchformer import without_batchformer
from dg_batchformer.text.command import command


class VarianceEncoder(nn.Module):
    """A learned variance per channel, initially 0.1, with shape (1, C, 1, ...).

    Args:
        maps: feature maps (N, C, ...), for their shape.
        channel_dim: their channel dimension.

    """

    floor = 1e-5

    def __init__(self, maps: Tensor, channel_dim: int) -> None:
        super().__init__()
        shape = [size if dim == channel_dim else 1 for dim, size in enumerate(maps.shape)]
        self.raw = nn.Parameter(torch.full(shape, log(expm1(0.1 - self.floor))))

    def forward(self) -> Tensor:
        """Return the positive variances."""
        return F.softplus(self.raw) + self.floor


class MIRO(ERM):
    """Mutual information regularization with an oracle: keep feature maps close to those of the pretrained network.

    Let f be the maps of the network after a stage, f' those of the oracle, both (N, C, H, W) or (N, tokens, C), and v a
    learned variance per channel. The penalty is the mean of ``((f - f')^2 / v + log v) / 2``, which is the negative of
    a lower bound on their mutual information, with the identity as mean encoder, as in the authors' release. It is
    summed over all stages: for a ResNet, the stem and four stages of blocks.

    The oracle is a frozen copy of the initial featurizer, in evaluation mode; it is not part of the predictor. With
    weights ``none`` it is random, and the penalty only slows training. Feature maps are those of the plain stream.
    """

    shapes_features = True
    needs_pixels = "MIRO compares the feature maps of every stage"

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        return {
            "ld": HParam(0.1, lambda rng: rng.choice([1.0, 0.1, 0.01, 0.001]), "weight of the penalty", low=0),
            "lr_mult": HParam(10.0, about="learning rate of the variances, relative to the network's", low=0),
        }

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.oracle = Featurizer(input_shape, hparams, attends=False).requires_grad_(False).eval()
        self._copy_to_oracle()
        with torch.no_grad():
            _, maps = self.oracle.with_maps(torch.zeros(1, *input_shape))
        if not maps:
            raise InputError(
                f"MIRO compares feature maps after every stage, but backbone {hparams['backbone']} has no stages; "
                f"use another backbone ({command('list', 'backbones')})"
            )
        channel_dim = self.oracle.channel_dim
        self.variances = nn.ModuleList(VarianceEncoder(of_stage, channel_dim(of_stage)) for of_stage in maps)
        self.variance_optimizer = self.new_optimizer(self.variances, lr=hparams["lr"] * hparams["lr_mult"])

    def begin_from(self, state: Mapping[str, Tensor]) -> None:
        super().begin_from(state)
        self._copy_to_oracle()

    def _copy_to_oracle(self) -> None:
        self.oracle.load_state_dict(without_batchformer(self.featurizer).state_dict())

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.oracle.eval()
        return self

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        num_domains = len(minibatches)
        x = torch.cat([x for x, _ in minibatches])
        y = torch.cat([y for _, y in minibatches])
        z, maps = self.featurizer.with_maps(x)
        risk = self.risk(self.classifier(z), y, num_domains)
        with torch.no_grad():
            _, known = self.oracle.with_maps(self.split_streams(x, num_domains)[0])
        both = [len(own) > len(pretrained) for own, pretrained in zip(maps, known, strict=True)]  # with BFv2's twins
        maps = [self.split_streams(own, num_domains)[0] if has else own for own, has in zip(maps, both, strict=True)]
        penalty = self._penalty(maps, known)
        for optimizer in (self.optimizer, self.variance_optimizer):
            optimizer.zero_grad()
        (risk + self.hparams["ld"] * penalty).backward()
        for optimizer in (self.optimizer, self.variance_optimizer):
            optimizer.step()
        return {"loss": risk.detach(), "penalty": penalty.detach()}

    def _penalty(self, maps: Sequence[Tensor], known: Sequence[Tensor]) -> Tensor:
        variances = [encoder() for encoder in self.variances]
        return torch.stack(
            [
                ((own - pretrained).square() / variance + variance.log()).mean() / 2
                for own, pretrained, variance in zip(maps, known, variances, strict=True)
            ]
        ).sum()
