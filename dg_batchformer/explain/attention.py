"""Attention of BatchFormer's layers, as they compute it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from dg_batchformer.networks.batchformer import BatchFormer


@contextmanager
def recorded_attention(batchformer: BatchFormer) -> Iterator[list[Tensor]]:
    """Collect the attention weights of every layer in turn while BatchFormer runs.

    Each is (sequences, L, L), averaged over heads: row i is what sample i of a sequence attends to, and sums to 1. The
    layers' own forward computes them, so they belong to its output, whatever the order of norm and attention.
    """
    weights: list[Tensor] = []

    def ask(attention: nn.Module, inputs: tuple[Tensor, ...], settings: dict[str, Any]) -> Any:
        return inputs, {**settings, "need_weights": True, "average_attn_weights": True}

    def record(attention: nn.Module, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        weights.append(output[1].detach())

    attentions = [module for module in batchformer.modules() if isinstance(module, nn.MultiheadAttention)]
    handles = [attention.register_forward_pre_hook(ask, with_kwargs=True) for attention in attentions]
    handles += [attention.register_forward_hook(record) for attention in attentions]
    try:
        yield weights
    finally:
        for handle in handles:
            handle.remove()


def relative_to_uniform(weights: Tensor) -> Tensor:
    """Scale attention weights, (..., L), so that 1 is what each of L samples gets when all get the same."""
    return weights * weights.shape[-1]
