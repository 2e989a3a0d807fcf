"""MixStyle — Zhou et al., 2021: mix the styles (channel-wise mean and standard deviation) of feature maps."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Beta

PARTNERS = ("any", "other_domain")
_EPS = 1e-6


def mix_styles(maps: Tensor, partners: Tensor, shares: Tensor) -> Tensor:
    """Interpolate every sample's style with its partner's: (N, C, H, W) -> (N, C, H, W).

    With m and s the channel means and standard deviations of a sample, and m', s' those of its partner, the result is
    ``(r s + (1 - r) s') (x - m) / s + r m + (1 - r) m'``. No gradient flows through m, s, m' and s'.

    Args:
        partners: (N,) indices of the partners.
        shares: (N,) weights r of a sample's own style, in [0, 1].

    """
    x = maps.float()  # statistics in bf16 would be coarse
    mean = x.mean(dim=(2, 3), keepdim=True).detach()
    deviation = (x.var(dim=(2, 3), correction=0, keepdim=True) + _EPS).sqrt().detach()
    share = shares[:, None, None, None]
    new_mean, new_deviation = (share * own + (1 - share) * own[partners] for own in (mean, deviation))
    return ((x - mean) / deviation * new_deviation + new_mean).to(maps.dtype)


def draw_partners(rows: int, domain_rows: int | None, device: torch.device | None = None) -> Tensor:
    """Draw a random partner for every row on a device, by default the CPU: (rows,).

    Args:
        rows: number of rows.
        domain_rows: rows per domain, if rows are sorted by domain: partners then come from another domain, the next one
            in a random cyclic order. With None, incomplete domains or a single domain, partners come from any.
        device: of the partners.

    """
    if domain_rows is None or rows % domain_rows or rows == domain_rows:
        return torch.randperm(rows, device=device)
    ring = torch.randperm(rows // domain_rows)
    partners = torch.empty(len(ring), domain_rows, dtype=torch.long, device=device)
    for domain, following in zip(ring.tolist(), ring.roll(-1).tolist(), strict=True):
        partners[domain] = following * domain_rows + torch.randperm(domain_rows, device=device)
    return partners.flatten()


def draw_shares(rows: int, alpha: float, device: torch.device | None = None) -> Tensor:
    """Draw a weight from Beta(alpha, alpha) for every row on a device, by default the CPU: (rows,)."""
    parameter = torch.full((), alpha, device=device)
    return Beta(parameter, parameter, validate_args=False).sample((rows,))  # validation would wait for the device


@dataclass(frozen=True)
class StyleMixer:
    """An ``after_stage`` hook that mixes styles after some stages of a featurizer.

    Args:
        places: indices of the stages, from 0.
        probability: of mixing, drawn once per batch and stage.
        alpha: shares are drawn from Beta(alpha, alpha) for every sample.
        domain_rows: see ``draw_partners``.

    """

    places: range
    probability: float
    alpha: float
    domain_rows: int | None

    def __call__(self, place: int, maps: Tensor) -> Tensor:
        """Mix the styles of a stage's output, or return it unchanged: (N, C, H, W) -> (N, C, H, W)."""
        if place not in self.places or float(torch.rand(())) >= self.probability:
            return maps
        shares = draw_shares(len(maps), self.alpha, maps.device)
        return mix_styles(maps, draw_partners(len(maps), self.domain_rows, maps.device), shares)
