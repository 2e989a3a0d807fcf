"""Features seen from afar: two principal components, and what domains and classes account for."""

from typing import NamedTuple

import torch
from torch import Tensor


class Projection(NamedTuple):
    """Principal components: coordinates (N, 2), and the share of the variance on each axis (2,)."""

    points: Tensor
    shares: Tensor


def principal_components(z: Tensor, beside: Projection | None = None) -> Projection:
    """Project features, (N, width >= 2), on the two directions in which they vary most.

    Signs, which are arbitrary, go along with another projection of the same rows where one is given.
    """
    centred = (z - z.mean(dim=0)).double()
    left, scales, _ = torch.linalg.svd(centred, full_matrices=False)
    points, variance = left[:, :2] * scales[:2], scales.square()
    if beside is not None:
        points = points * torch.where((points * beside.points).sum(dim=0) < 0, -1, 1)
    return Projection(points, variance[:2] / variance.sum())


def accounted_for(z: Tensor, groups: Tensor) -> float:
    """Return the share of the variance of features, (N, width), that lies between the means of groups, (N,)."""
    centred = (z - z.mean(dim=0)).double()
    between = torch.zeros((), dtype=torch.double)
    for group in groups.unique():
        members = centred[groups == group]
        between += len(members) * members.mean(dim=0).square().sum()
    return float(between / centred.square().sum())
