"""Gradient flow between samples — Hou et al., 2022: mean |d loss_i / d feature_j|, 0 for i != j without BatchFormer."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


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
