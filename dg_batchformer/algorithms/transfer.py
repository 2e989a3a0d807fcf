"""Transfer — Zhang et al., 2021: features on which no nearby classifier has very different losses over domains."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import SGD

from dg_batchformer.algorithms.base import Metrics, Minibatches, descend
from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.hparams import HParam


class Transfer(ERM):
    """Transferability: a second classifier, near the first, widens the gap between losses; the features close it.

    The gap is of plain features, and closing it moves the featurizer without the encoder.

    Differs from DomainBed: under ``gda`` featurizer and classifier descend by SGD (upstream gives that optimizer the
    second classifier only: with random hparams nothing is trained); ``weight_decay_d`` is read; the ascent shares one
    forward, which is equal without dropout and live BatchNorm.
    """

    compares_domains = True

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        return {
            "t_lambda": HParam(1.0, lambda rng: 10 ** rng.uniform(-2, 1), "weight of the gap", low=0),
            "delta": HParam(2.0, lambda rng: rng.uniform(0.1, 3.0), "how far the second classifier may go", low=0),
            "d_steps_per_g": HParam(10, lambda rng: rng.choice([1, 2, 5]), "ascents per update", low=1),
            "weight_decay_d": HParam(0.0, lambda rng: 10 ** rng.uniform(-6, -2), "decay of the ascent", low=0),
            "gda": HParam(False, lambda rng: True, "gradient descent ascent: SGD instead of Adam"),
            "beta1": HParam(0.5, lambda rng: rng.choice([0.0, 0.5]), "read by nobody, as upstream", low=0, high=0.9999),
            "lr_d": HParam(1e-3, lambda rng: 10 ** rng.uniform(-4.5, -2.5), "learning rate of the ascent", low=0),
        }

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.adv_classifier = copy.deepcopy(self.classifier)
        if hparams["gda"]:
            self.optimizer = self.new_optimizer(self.network, kind=SGD)
        self.adv_opt = self.new_optimizer(
            self.adv_classifier, kind=SGD, lr=hparams["lr_d"], weight_decay=hparams["weight_decay_d"]
        )

    def begin_from(self, state: Mapping[str, Tensor]) -> None:
        super().begin_from(state)
        self.adv_classifier.load_state_dict(self.classifier.state_dict())

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        x = torch.cat([x for x, _ in minibatches])
        y = torch.cat([y for _, y in minibatches])
        risk = self.risk(self.network(x), y, num_domains=len(minibatches))
        descend(self.optimizer, risk)

        descend(self.optimizer, self._gap(self._features(minibatches), minibatches))
        self.adv_classifier.load_state_dict(self.classifier.state_dict())
        with torch.no_grad():
            features = self._features(minibatches)
        for _ in range(self.hparams["d_steps_per_g"]):
            gap = self._gap(features, minibatches)
            descend(self.adv_opt, -gap)
            self._project()
        return {"loss": risk.detach(), "gap": gap.detach()}

    def _features(self, minibatches: Minibatches) -> list[Tensor]:
        return list(self.forward_plain(self.featurizer, minibatches).chunk(len(minibatches)))

    def _gap(self, features: list[Tensor], minibatches: Minibatches) -> Tensor:
        losses = [
            F.cross_entropy(self.adv_classifier(z), self.split_streams(y)[0])
            for z, (_, y) in zip(features, minibatches, strict=True)
        ]
        stacked = torch.stack(losses)
        return self.hparams["t_lambda"] * (stacked.max() - stacked.min())

    @torch.no_grad()
    def _project(self) -> None:
        """Bring the second classifier back into a ball of radius ``delta`` around the first."""
        pairs = list(zip(self.adv_classifier.parameters(), self.classifier.parameters(), strict=True))
        distance = torch.stack([(adversary - own).square().sum() for adversary, own in pairs]).sum().sqrt()
        share = (self.hparams["delta"] / distance.clamp_min(1e-12)).clamp_max(1)
        for adversary, own in pairs:
            adversary.copy_(own + share * (adversary - own))
