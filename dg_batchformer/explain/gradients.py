"""Gradient flow between samples — Hou et al., 2022: mean |d loss_i / d feature_j|, 0 for i != j without BatchFormer."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def gradient_magnitudes(loss_of: Callable[[Tensor], Tensor], z: Tensor, rows: Tensor) -> Tensor:
    """Return how much the features of every sample move the losses of some: (rows, N), means over the width.

    Args:
        loss_of: features (domains, n, width) -> loss of every sample, (N,), N = domains * n.
        z: features. rows: which losses.

    """
    z = z.detach().requires_grad_()
    losses = loss_of(z)[rows.to(z.device)]
    each = torch.eye(len(rows), device=z.device)  # one loss at a time, all in one backward pass
    [gradients] = torch.autograd.grad(losses, z, each, is_grads_batched=True)
    return gradients.abs().mean(dim=-1).flatten(1)


def stream_losses(
    classify: Callable[[Tensor], Tensor], attend: Callable[[Tensor], Tensor], labels: Tensor
) -> Callable[[Tensor], Tensor]:
    """Return features -> cross-entropy of every sample, of one stream.

    Args:
        classify: (N, width) -> logits. attend: (domains, n, width) -> the same; the identity for the plain stream.
        labels: (N,) class indices.

    """
    return lambda z: F.cross_entropy(classify(attend(z).flatten(0, 1)), labels, reduction="none")
