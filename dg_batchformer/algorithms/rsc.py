"""RSC — Huang et al., 2020: mute the features that predictions depend on most."""

import torch
from torch import Tensor

from dg_batchformer.algorithms.base import Metrics, Minibatches, descend
from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.hparams import HParam


class RSC(ERM):
    """Representation self-challenging: mute the features with the largest gradients, in the samples most affected.

    Masks are computed from plain features, and applied to both streams of BatchFormer.

    Differs from DomainBed: percentiles are computed on the device.
    """

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        return {
            f"rsc_{part}_drop_factor": HParam(1 / 3, lambda rng: rng.uniform(0, 0.5), about, low=0, high=1)
            for part, about in (("f", "share of features to mute"), ("b", "share of samples to mute features in"))
        }

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        num_domains = len(minibatches)
        y = torch.cat([y for _, y in minibatches])
        z = self.featurizer(torch.cat([x for x, _ in minibatches]))
        plain, labels = (self.split_streams(rows, num_domains)[0] for rows in (z, y))
        kept = self.in_both_streams(self.kept_features(plain.detach(), labels), num_domains)
        loss = self.risk(self.classifier(z * kept), y, num_domains)
        descend(self.optimizer, loss)
        return {"loss": loss.detach()}

    def kept_features(self, z: Tensor, y: Tensor) -> Tensor:
        """Return the mask of features to keep: (N, D) -> (N, D), of zeros and ones."""
        z.requires_grad_()
        logits = self.classifier(z)
        true_logits = logits.gather(1, y[:, None])
        gradient = torch.autograd.grad(true_logits.sum(), z)[0]
        with torch.no_grad():
            drop = 1 - self.hparams["rsc_f_drop_factor"]
            small = gradient < gradient.quantile(drop, dim=1, keepdim=True)
            before, after = (
                scores.softmax(dim=1).gather(1, y[:, None]) for scores in (logits, self.classifier(z * small))
            )
            change = before - after
            spared = change < change.quantile(1 - self.hparams["rsc_b_drop_factor"])
        return (small | spared).float()
