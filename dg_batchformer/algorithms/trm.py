"""TRM — Xu & Jaakkola, 2021: features for which a classifier fitted to one domain works in the others."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dg_batchformer.algorithms.base import Metrics, Minibatches, descend, forward_domains
from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.hparams import HParam

_FIT_STEPS, _FIT_LR, _SERIES = 30, 0.1, 10


class TRM(ERM):
    """Transfer risk minimization: fit a head to each domain, and minimize its risk in the other domains.

    The dependence of a head on the features is differentiated by the implicit function theorem, with a Neumann series
    for the inverse Hessian. Heads and transfer risks use plain features.

    Differs from DomainBed: also runs on CPUs, heads are part of the state, and each term of the series is added once
    (upstream adds the second one twice, by aliasing).
    """

    compares_domains = True
    shapes_features = True

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        return {
            "cos_lambda": HParam(1e-4, lambda rng: 10 ** rng.uniform(-5, 0), "weight of the implicit term", low=0),
            "iters": HParam(
                200, lambda rng: 10 ** rng.uniform(0, 4), "updates before the transfer risk is applied", low=0
            ),
            "groupdro_eta": HParam(
                1e-2, lambda rng: 10 ** rng.uniform(-3, -1), "step size of the domain weights", low=0
            ),
        }

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        width = self.featurizer.n_outputs
        self.heads = nn.ModuleList(nn.Linear(width, num_classes) for _ in range(num_domains))
        self.alpha: Tensor
        self.register_buffer("alpha", torch.ones(num_domains, num_domains) - torch.eye(num_domains))
        self.updates = 0

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        features = forward_domains(self.featurizer, minibatches)
        y = torch.cat([y for _, y in minibatches])
        risk = self.risk(self.classifier(torch.cat(features)), y, num_domains=len(minibatches))
        transfer = torch.zeros_like(risk)
        if self.updates >= self.hparams["iters"] and len(minibatches) > 1:
            plain = [self.split_streams(z)[0] for z in features]
            transfer = self._transfer_risk(plain, [self.split_streams(y)[0] for _, y in minibatches])
        descend(self.optimizer, risk + transfer)
        self.updates += 1
        return {"nll": risk.detach(), "trm_loss": transfer.detach()}

    def _transfer_risk(self, features: list[Tensor], labels: list[Tensor]) -> Tensor:
        self._fit_heads([z.detach() for z in features], labels)
        self.alpha /= self.alpha.sum(dim=1, keepdim=True)
        risks = []
        for own, head in enumerate(self.heads):
            others = torch.stack([F.cross_entropy(head(z), y) for z, y in zip(features, labels, strict=True)])
            weighted = others * self.alpha[own].clone()  # a domain's weight for itself is 0
            own_gradient = _weight_gradient(F.cross_entropy(head(features[own]), labels[own]), head)
            direction = _weight_gradient(weighted.sum(), head).detach()
            direction = inverse_hessian_product(direction, head, features[own].detach(), labels[own])
            risks.append(weighted.sum() - self.hparams["cos_lambda"] * (direction * own_gradient).sum())
            self.alpha[own] *= (self.hparams["groupdro_eta"] * weighted.detach()).exp()
        return torch.stack(risks).mean()

    def _fit_heads(self, features: list[Tensor], labels: list[Tensor]) -> None:
        if self.hparams["class_balanced"] and isinstance(self.classifier, nn.Linear):  # for stability, as in DomainBed
            for head in self.heads:
                head.load_state_dict({**head.state_dict(), "weight": self.classifier.weight})
        optimizer = torch.optim.SGD(self.heads.parameters(), lr=_FIT_LR)
        for _ in range(_FIT_STEPS):
            losses = [F.cross_entropy(head(z), y) for head, z, y in zip(self.heads, features, labels, strict=True)]
            descend(optimizer, torch.stack(losses).sum())


def _weight_gradient(loss: Tensor, head: nn.Module) -> Tensor:
    return torch.autograd.grad(loss, head.get_parameter("weight"), create_graph=True)[0]


def inverse_hessian_product(vector: Tensor, head: nn.Module, z: Tensor, y: Tensor) -> Tensor:
    """Multiply the inverse Hessian of the head's loss by a vector, with a Neumann series; stop if it diverges."""
    total = term = vector
    weight = head.get_parameter("weight")
    gradient = _weight_gradient(F.cross_entropy(head(z), y), head)
    for _ in range(_SERIES):
        product = torch.autograd.grad(gradient, weight, grad_outputs=term, retain_graph=True)[0]
        term = term - product
        grown = total + term
        total = torch.where(total.abs().max() > 10, total, grown)
    return total.detach()
