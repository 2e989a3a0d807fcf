"""LoRA — Hu et al., ICLR 2022: a weight that is kept, plus a product of two thin matrices that is trained."""

from collections.abc import Iterable
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from dg_batchformer.seeds import seed_hash


class LowRank(nn.Module):
    """Maps a weight W, (rows, columns), to ``W + alpha / rank * B A``, with A of (rank, columns), B of (rows, rank).

    B begins with zeros, A as a linear layer does: at first the weight is W.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        rows, columns = weight.shape
        self.a = nn.Parameter(weight.new_empty(rank, columns))
        self.b = nn.Parameter(weight.new_zeros(rows, rank))
        self.scale = alpha / rank
        nn.init.kaiming_uniform_(self.a, a=sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.scale * (self.b @ self.a)


def add_lora(weights: Iterable[tuple[nn.Module, str]], rank: int, alpha: float) -> None:
    """Add a product of low rank to weights, each a module and the name of its parameter; rank 0 adds nothing.

    The initialization uses a generator of its own: the classifier is the same with and without LoRA.
    """
    if rank == 0:
        return
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_hash("LoRA", torch.initial_seed()))
        for module, name in weights:
            register_parametrization(module, name, LowRank(getattr(module, name), rank, alpha))
