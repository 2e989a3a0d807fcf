"""RDM — Nguyen et al., 2024: match the risk distribution of the worst domain with that of all domains."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dg_batchformer.algorithms.base import Metrics, Minibatches, descend, forward_domains
from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.algorithms.mmd import GAMMAS, mmd_distance
from dg_batchformer.catalog.datasets import has_small_images
from dg_batchformer.hparams import HParam


class RDM(ERM):
    """Risk distribution matching: penalize the discrepancy and the variances of per-sample losses.

    Per-sample losses, and the choice of the worst domain, use the plain stream.

    Differs from DomainBed: also runs on CPUs; constants are not reported as metrics.
    """

    compares_domains = True

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        big, terra = dataset == "DomainNet", dataset == "TerraIncognita"
        space = {
            "rdm_lambda": HParam(
                0.5 if big else 5.0,
                lambda rng: (
                    rng.uniform(0.1, 1.0)
                    if big
                    else rng.uniform(1 if dataset in ("PACS", "TerraIncognita") else 0.1, 10)
                ),
                "weight of the discrepancy",
                low=0,
            ),
            "rdm_penalty_anneal_iters": HParam(
                2400 if big else 1500,
                lambda rng: rng.uniform(1500, 3000) if big else rng.uniform(800, 2700),
                "updates before the penalties are applied",
                low=0,
            ),
            "variance_weight": HParam(0.004, lambda rng: rng.uniform(0.001, 0.007), "weight of the variances", low=0),
            "rdm_lr": HParam(1.5e-5, lambda rng: rng.uniform(8e-6, 2e-5), "learning rate with the penalties", low=0),
        }
        if dataset in ("TerraIncognita", "OfficeHome", "DomainNet"):
            space["variance_weight"] = HParam(0.0, about="weight of the variances", low=0)
        if not has_small_images(dataset):
            low, high, default = (30, 60, 40) if big or terra else (70, 100, 88)
            space["batch_size"] = HParam(
                default, lambda rng: rng.uniform(low, high), "images per training environment", low=2
            )
        return space

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.updates = 0

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        logits = forward_domains(self.network, minibatches)
        risks = self.risks(logits, [y for _, y in minibatches])
        losses = torch.stack([self._losses(z, y) for z, (_, y) in zip(logits, minibatches, strict=True)])
        place = losses.detach().mean(dim=1).argmax(dim=0, keepdim=True)
        worst = losses.index_select(0, place).squeeze(0)  # (environments, n) -> (n,)
        matching = mmd_distance(worst[:, None], losses.flatten()[:, None], (0.0001, *GAMMAS))
        variance = losses.var() + worst.var()
        if self.updates == self.hparams["rdm_penalty_anneal_iters"]:
            self.optimizer = self.new_optimizer(self.network, lr=self.hparams["rdm_lr"])
        loss = risks.mean()
        if self.updates >= self.hparams["rdm_penalty_anneal_iters"]:
            loss = loss + self.hparams["rdm_lambda"] * matching + self.hparams["variance_weight"] * variance
        descend(self.optimizer, loss)
        self.updates += 1
        return {
            "total_loss": loss.detach(),
            "erm_loss": risks.mean().detach(),
            "matching_penalty": matching.detach(),
            "variance_penalty": variance.detach(),
        }

    def _losses(self, logits: Tensor, y: Tensor) -> Tensor:
        plain, labels = self.split_streams(logits)[0], self.split_streams(y)[0]
        return F.cross_entropy(plain, labels, reduction="none")
