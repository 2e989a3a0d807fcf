"""CutMix — Yun et al., 2019: paste a patch of another image, and mix the labels by area."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dg_batchformer.algorithms.base import Metrics, Minibatches, descend, domain_labels
from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.hparams import HParam


class CutMix(ERM):
    """Paste a patch of another image of the batch, from any environment, and mix the labels by area.

    A share r is drawn from Beta(beta, beta), and a box with sides ``sqrt(1 - r)`` of the image's around a random center
    pixel. Inside the box, images (N, C, H, W) are replaced by those of a permuted batch. The loss is
    ``r loss(y) + (1 - r) loss(y')``, where r is now the area outside the box clipped at the border. For vectors, an
    interval of features is pasted.

    Samples are mixed before BatchFormer; both streams share patch, partner and labels.
    """

    needs_pixels = "CutMix pastes patches of images into others"

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        return {
            "beta": HParam(1.0, about="parameter of the Beta distribution of the area kept", low=1e-3),
            "cutmix_prob": HParam(1.0, about="probability of mixing a batch", low=0, high=1),
        }

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        num_domains = len(minibatches)
        x = torch.cat([x for x, _ in minibatches])
        y = torch.cat([y for _, y in minibatches])
        share, pasted_y, pasted_env = 1.0, y, None
        if np.random.rand() < self.hparams["cutmix_prob"]:
            beta = self.hparams["beta"]
            plain, labels = (self.split_streams(rows, num_domains)[0] for rows in (x, y))
            sizes = plain.shape[2:] or plain.shape[1:]  # of vectors, the features
            box, share = cut_box(sizes, float(np.random.beta(beta, beta)))
            partners = torch.randperm(len(plain), device=plain.device)
            x = self.in_both_streams(paste(plain, partners, box), num_domains)
            pasted_y = self.in_both_streams(labels[partners], num_domains)
            pasted_env = domain_labels(num_domains, labels)[partners]
        logits = self.network(x)
        pasted_risk = self.risk(logits, pasted_y, num_domains, pasted_env)
        loss = share * self.risk(logits, y, num_domains) + (1 - share) * pasted_risk
        descend(self.optimizer, loss)
        return {"loss": loss.detach()}


def cut_box(sizes: Sequence[int], share: float) -> tuple[tuple[slice, ...], float]:
    """Draw a box that leaves about ``share`` of the area; return it, and the exact share after clipping."""
    scale = (1 - share) ** (1 / len(sizes))
    box = []
    for size in sizes:
        centre, half = int(np.random.randint(size)), int(size * scale) // 2
        box.append(slice(max(centre - half, 0), min(centre + half, size)))
    return tuple(box), 1 - prod(side.stop - side.start for side in box) / prod(sizes)


def paste(x: Tensor, partners: Tensor, box: Sequence[slice]) -> Tensor:
    """Paste the box of every sample's partner: (N, C, H, W), (N,) -> (N, C, H, W)."""
    region: tuple[Any, ...] = (..., *box)
    pasted = x.clone()
    pasted[region] = x[partners][region]
    return pasted
