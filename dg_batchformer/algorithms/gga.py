"""GGA — Ballas & Diou, 2025: search early for nearby weights where the gradients of the domains agree."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dg_batchformer.algorithms.base import Metrics, Minibatches
from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.hparams import HParam
from dg_batchformer.networks.batch_norm import batch_norm_held
from dg_batchformer.networks.batchformer import pairing, without_batchformer
from dg_batchformer.networks.freezing import trainable

_RISE = 0.1  # by which the risk may exceed that of the weights accepted before


def least_similarity(gradients: Sequence[Tensor]) -> Tensor:
    """Return the lowest cosine similarity of two gradients: two or more of (parameters,) -> ()."""
    return torch.stack([F.cosine_similarity(a, b, dim=0) for a, b in combinations(gradients, 2)]).min()


class GGA(ERM):
    """Gradient-guided annealing: ERM, with a random search before each update of an early stage of training.

    The search adds uniform noise in ``[-gga_radius, gga_radius]`` to the weights of the featurizer, ``gga_trials``
    times. A trial is accepted if the least cosine similarity of the risk gradients of two environments rises, and the
    risk on all of them does not exceed that of the last accepted weights by 0.1 or more. After an accepted trial, the
    noise starts from the original weights again; after a rejected one it adds up. The update is made at the weights
    accepted last. The search uses plain rows, without BatchFormer. There is none if the featurizer is frozen.

    The defaults make 25,000 trials, each of which costs about an update and a forward pass: a run of 5000 updates takes
    seven times as long. As in the authors' release, the radius is constant, and no worse trial is accepted.

    Differs from the authors' release: BatchNorm statistics, unless frozen, are not updated by the search.
    """

    compares_domains = True
    shapes_features = True

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        return {
            "gga_start_step": HParam(100, about="first update with a search", low=0),
            "gga_end_step": HParam(200, about="last update with a search", low=0),
            "gga_radius": HParam(1e-5, lambda rng: 10 ** rng.uniform(-6, -4), "bound of the noise on a weight", low=0),
            "gga_trials": HParam(250, about="trials of a search", low=1),
        }

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.updates = 0

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        metrics: Metrics = {}
        searches = self.hparams["gga_start_step"] <= self.updates <= self.hparams["gga_end_step"]
        if searches and len(minibatches) > 1 and trainable(without_batchformer(self.featurizer)):
            plain = [(self.split_streams(x)[0], self.split_streams(y)[0]) for x, y in minibatches]
            with batch_norm_held(self.network), pairing(self.network, None):
                metrics = {"similarity": self._search(plain)}
        self.updates += 1
        return {**super().update(minibatches, unlabeled), **metrics}

    def _search(self, minibatches: Minibatches) -> Tensor:
        """Move to the weights accepted last; return the least similarity there."""
        moved = trainable(without_batchformer(self.featurizer))
        present = [weight.detach().clone() for weight in moved]
        accepted = present
        similarity, risk = self._measure(minibatches)
        for _ in range(self.hparams["gga_trials"]):
            with torch.no_grad():
                for weight in moved:
                    weight.add_((torch.rand_like(weight) * 2 - 1) * self.hparams["gga_radius"])
            tried_similarity, tried_risk = self._measure(minibatches)
            if tried_similarity > similarity and tried_risk < risk + _RISE:
                similarity, risk = tried_similarity, tried_risk
                accepted = [weight.detach().clone() for weight in moved]
                _load(moved, present)
        _load(moved, accepted)
        return similarity

    def _measure(self, minibatches: Minibatches) -> tuple[Tensor, Tensor]:
        """Return the least similarity of the gradients of environments, and the risk on all of them together."""
        weights = trainable(without_batchformer(self.network))
        gradients = []
        for env, (x, y) in enumerate(minibatches):
            own = torch.autograd.grad(self._mean_loss(self.network(x), y, 1, env), weights, materialize_grads=True)
            gradients.append(torch.cat([part.flatten() for part in own]))
        with torch.no_grad():
            logits = self.network(torch.cat([x for x, _ in minibatches]))
            risk = self._mean_loss(logits, torch.cat([y for _, y in minibatches]), len(minibatches), None)
        return least_similarity(gradients), risk


@torch.no_grad()
def _load(weights: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    torch._foreach_copy_(list(weights), list(values))
