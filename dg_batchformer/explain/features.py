"""Features seen from afar: two principal components, and what domains and classes account for."""

from typing import NamedTuple

import torch
from torch import Tensor


class Projection(NamedTuple):
    """Principal components: coordinates (N, 2), and the share of the variance on each axis (2,)."""

    points: Tensor
    shares: Tensor


def principal_components(z: Tensor) -> Projection:
    """Project features, (N, width >= 2), on the two directions in which they vary most, signs fixed."""
    centred = (z - z.mean(dim=0)).double()
    _, scales, directions = torch.linalg.svd(centred, full_matrices=False)
    directions = directions[:2]
    largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
    variance = scales.square()
    return Projection(centred @ (directions * largest.sign()).T, variance[:2] / variance.sum())


def accounted_for(z: Tensor, groups: Tensor) -> float:
    """Return the share of the variance of features, (N, width), that lies between the means of groups, (N,)."""
    centred = (z - z.mean(dim=0)).double()
    between = torch.zeros((), dtype=torch.double)
    for group in groups.unique():
        members = centred[groups == group]
        between += len(members) * members.mean(dim=0).square().sum()
    return float(between / centred.square().sum())
