"""What explain measures: attention weights, gradient flow between samples, and the spread of features.

Gradient flow is that of Hou et al., 2022: mean |d loss_i / d feature_j|, 0 for i != j without BatchFormer.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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


def gradient_magnitudes(loss_of: Callable[[Tensor], Tensor], z: Tensor, rows: Tensor) -> Tensor:
    """Return the mean absolute gradient of some samples' losses with respect to every sample's features, (rows, N).

    Args:
        loss_of: maps features (domains, n, width) to the loss of every sample (N,), where N = domains * n.
        z: features (domains, n, width).
        rows: indices of the samples whose losses are differentiated; the mean is over the width.

    """
    z = z.detach().requires_grad_()
    losses = loss_of(z)[rows.to(z.device)]
    each = torch.eye(len(rows), device=z.device)  # batches the gradients of single losses
    [gradients] = torch.autograd.grad(losses, z, each, is_grads_batched=True)
    return gradients.abs().mean(dim=-1).flatten(1)


def stream_losses(
    classify: Callable[[Tensor], Tensor], attend: Callable[[Tensor], Tensor], labels: Tensor
) -> Callable[[Tensor], Tensor]:
    """Return a function from the features of one stream to the cross-entropy of every sample.

    Args:
        classify: maps (N, width) to logits.
        attend: maps (domains, n, width) to the same shape; the identity for the plain stream.
        labels: (N,) class indices.

    """
    return lambda z: F.cross_entropy(classify(attend(z).flatten(0, 1)), labels, reduction="none")


class Projection(NamedTuple):
    """Principal components: coordinates (N, 2), and the share of the variance along each axis (2,)."""

    points: Tensor
    shares: Tensor


def principal_components(z: Tensor, beside: Projection | None = None) -> Projection:
    """Project features (N, width >= 2) onto their first two principal components.

    Args:
        z: features.
        beside: another projection of the same rows; signs, which are arbitrary, are chosen to match it.

    """
    centred = (z - z.mean(dim=0)).double()
    left, scales, _ = torch.linalg.svd(centred, full_matrices=False)
    points, variance = left[:, :2] * scales[:2], scales.square()
    if beside is not None:
        points = points * torch.where((points * beside.points).sum(dim=0) < 0, -1, 1)
    return Projection(points, variance[:2] / variance.sum())


def accounted_for(z: Tensor, groups: Tensor) -> float:
    """Return the share of the variance of features (N, width) between the means of groups (N,), in [0, 1]."""
    centred = (z - z.mean(dim=0)).double()
    between = torch.zeros((), dtype=torch.double)
    for group in groups.unique():
        members = centred[groups == group]
        between += len(members) * members.mean(dim=0).square().sum()
    return float(between / centred.square().sum())
