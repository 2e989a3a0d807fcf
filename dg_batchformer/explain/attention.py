"""Attention weights of BatchFormer's layers, recorded in their forward pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from dg_batchformer.networks.batchformer import BatchFormer


@contextmanager
def recorded_attention(batchformer: BatchFormer) -> Iterator[list[Tensor]]:
    """Record the attention weights of every layer, in order, inside the context.

    Each is (sequences, L, L), averaged over heads: row i holds the weights with which sample i attends to the samples
    of its sequence, and sums to 1. The layers' own forward computes them, so pre-norm and post-norm both work.
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
    """Scale attention weights (..., L) by L, so that uniform attention is 1."""
    return weights * weights.shape[-1]
