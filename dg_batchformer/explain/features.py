"""Principal components of features, and the variance that domains and classes explain."""

from typing import NamedTuple

import torch
from torch import Tensor


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
