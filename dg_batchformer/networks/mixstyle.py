"""MixStyle — Zhou et al., 2021: the style of an image is the mean and deviation of its feature maps; mix them."""

from dataclasses import dataclass

import torch
from torch import Tensor

PARTNERS = ("any", "other_domain")
_EPS = 1e-6


def mix_styles(maps: Tensor, partners: Tensor, shares: Tensor) -> Tensor:
    """Give every sample a style between its own and its partner's, (N, C, H, W) -> (N, C, H, W).

    With m and s the mean and standard deviation of every channel of a sample, and m', s' those of its partner, the
    result is ``(r s + (1 - r) s') (x - m) / s + r m + (1 - r) m'``. No gradient flows through styles.

    Args:
        partners: (N,) whose style is mixed in.
        shares: (N,) r, what is kept of one's own style.

    """
    x = maps.float()  # statistics in bf16 would be coarse
    mean = x.mean(dim=(2, 3), keepdim=True).detach()
    deviation = (x.var(dim=(2, 3), correction=0, keepdim=True) + _EPS).sqrt().detach()
    share = shares[:, None, None, None]
    new_mean, new_deviation = (share * own + (1 - share) * own[partners] for own in (mean, deviation))
    return ((x - mean) / deviation * new_deviation + new_mean).to(maps.dtype)


def draw_partners(rows: int, domain_rows: int | None) -> Tensor:
    """Pair every row with another at random, -> (rows,).

    Args:
        domain_rows: rows of one domain, of equal domains one after the other: partners are then of another domain, the
            next in a random ring. None, or rows that are not whole domains, or one domain: of any.

    """
    if domain_rows is None or rows % domain_rows or rows == domain_rows:
        return torch.randperm(rows)
    ring = torch.randperm(rows // domain_rows)
    partners = torch.empty(len(ring), domain_rows, dtype=torch.long)
    for domain, following in zip(ring.tolist(), ring.roll(-1).tolist(), strict=True):
        partners[domain] = following * domain_rows + torch.randperm(domain_rows)
    return partners.flatten()


@dataclass(frozen=True)
class StyleMixer:
    """Mixes styles after some stages of a featurizer, as its ``after_stage``.

    Args:
        places: the stages, counted from 0.
        probability: of mixing, drawn for the whole batch at every stage.
        alpha: shares are drawn from Beta(alpha, alpha), for every sample.
        domain_rows: see ``draw_partners``.

    """

    places: range
    probability: float
    alpha: float
    domain_rows: int | None

    def __call__(self, place: int, maps: Tensor) -> Tensor:
        """Return the maps to go on with, (N, C, H, W) -> (N, C, H, W)."""
        if place not in self.places or float(torch.rand(())) >= self.probability:
            return maps
        shares = torch.distributions.Beta(self.alpha, self.alpha).sample((len(maps),))
        partners = draw_partners(len(maps), self.domain_rows)
        return mix_styles(maps, partners.to(maps.device), shares.to(maps.device))
