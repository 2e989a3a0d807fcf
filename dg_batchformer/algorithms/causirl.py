"""CausIRL — Chevalley et al., 2022: features whose distribution is invariant to interventions on the domain."""

import numpy as np
import torch
from torch import Tensor

from dg_batchformer.algorithms.coral import CORAL
from dg_batchformer.algorithms.mmd import MMD


class CausIRL_CORAL(CORAL):  # noqa: N801 the field's name
    """ERM plus the CORAL distance between two pools, each with a random part of every environment."""

    compares_domains = False  # its pools differ on one environment too

    def penalty(self, features: list[Tensor]) -> Tensor:
        """Compute the distance between the pools; 0 if one has fewer than two samples."""
        cuts = [np.random.randint(0, len(z)) for z in features]
        first = torch.cat([z[:cut] for z, cut in zip(features, cuts, strict=True)])
        second = torch.cat([z[cut:] for z, cut in zip(features, cuts, strict=True)])
        if min(len(first), len(second)) < 2:
            return first.new_zeros(())
        return torch.nan_to_num(self.distance(first, second))


class CausIRL_MMD(CausIRL_CORAL):  # noqa: N801
    """ERM plus the maximum mean discrepancy between two pools, each with a random part of every environment."""

    distance = staticmethod(MMD.distance)
