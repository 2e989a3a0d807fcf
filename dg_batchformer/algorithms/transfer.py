"""Transfer — Zhang et al., 2021: features on which nearby classifiers have similar losses in all domains."""

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
    """Transferability: an adversarial classifier near the main one widens the gap of losses; the features close it.

    The gap uses plain features, and closing it does not update the encoder.

    Differs from DomainBed: with ``gda``, featurizer and classifier are trained by SGD (upstream passes only the
    adversarial classifier to that optimizer, so random hparams train nothing); ``weight_decay_d`` is used; all ascent
    steps share one forward pass, which is equivalent without dropout and BatchNorm in training mode.
    """

    compares_domains = True
    shapes_features = True

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        return {
            "t_lambda": HParam(1.0, lambda rng: 10 ** rng.uniform(-2, 1), "weight of the gap", low=0),
            "delta": HParam(
                2.0,
                lambda rng: rng.uniform(0.1, 3.0),
                "radius of the adversarial classifier around the main one",
                low=0,
            ),
            "d_steps_per_g": HParam(10, lambda rng: rng.choice([1, 2, 5]), "ascent steps per update", low=1),
            "weight_decay_d": HParam(0.0, lambda rng: 10 ** rng.uniform(-6, -2), "weight decay of the ascent", low=0),
            "gda": HParam(False, lambda rng: True, "gradient descent ascent: use SGD instead of Adam"),
            "beta1": HParam(0.5, lambda rng: rng.choice([0.0, 0.5]), "unused, as in DomainBed", low=0, high=0.9999),
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
        """Project the adversarial classifier into a ball of radius ``delta`` around the main one."""
        pairs = list(zip(self.adv_classifier.parameters(), self.classifier.parameters(), strict=True))
        distance = torch.stack([(adversary - own).square().sum() for adversary, own in pairs]).sum().sqrt()
        share = (self.hparams["delta"] / distance.clamp_min(1e-12)).clamp_max(1)
        for adversary, own in pairs:
            adversary.copy_(own + share * (adversary - own))
