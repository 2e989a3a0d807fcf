"""ANDMask and SANDMask — Parascandolo et al., 2021; Shahtalebi et al., 2021: mask gradients whose signs disagree."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dg_batchformer.algorithms.base import Metrics, Minibatches
from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.hparams import HParam
from dg_batchformer.networks.batchformer import without_batchformer
from dg_batchformer.networks.freezing import trainable


def agreement(gradients: Tensor) -> Tensor:
    """Compute the agreement of gradient signs: (environments, ...) -> (...), in [0, 1]."""
    return gradients.sign().mean(dim=0).abs()


class ANDMask(ERM):
    """Average gradients over environments, and keep entries whose sign agreement is at least ``tau``.

    With BatchFormer, gradients include both streams, and masks are computed from those of plain rows; the encoder,
    which plain rows do not reach, is masked by its own gradients.
    """

    compares_domains = True
    attends = "per_domain"

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        return {"tau": HParam(1.0, lambda rng: rng.uniform(0.5, 1), "minimal agreement", low=0, high=1)}

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        parameters = trainable(self.network)
        reached_by_plain = trainable(without_batchformer(self.network))
        risks, followed, masking = [], [], []
        for env, (x, y) in enumerate(minibatches):
            logits = self.network(x)
            risk = self.risk(logits, y, env=env)
            risks.append(risk.detach())
            gradients = _gradients(risk, parameters, retain_graph=self.streams > 1)
            followed.append(gradients)
            if self.streams > 1:
                gradients = {**gradients, **_gradients(self.plain_risk(logits, y, env=env), reached_by_plain)}
            masking.append(gradients)
        for parameter in parameters:
            mask = self.mask(torch.stack([by_parameter[parameter] for by_parameter in masking]))
            mean = torch.stack([by_parameter[parameter] for by_parameter in followed]).mean(dim=0)
            parameter.grad = mask * mean / (mask.mean() + 1e-10)
        self.optimizer.step()
        return {"loss": torch.stack(risks).mean()}

    def mask(self, gradients: Tensor) -> Tensor:
        """Compute the mask of one parameter: (environments, ...) -> (...)."""
        return (agreement(gradients) >= self.hparams["tau"]).float()


def _gradients(risk: Tensor, parameters: Sequence[Tensor], *, retain_graph: bool = False) -> dict[Tensor, Tensor]:
    """Return copies of a risk's gradients by parameter, as the next CUDA graph replay would overwrite them."""
    gradients = torch.autograd.grad(risk, parameters, retain_graph=retain_graph, materialize_grads=True)
    return {parameter: gradient.clone() for parameter, gradient in zip(parameters, gradients, strict=True)}


class SANDMask(ANDMask):
    """ANDMask with a smooth mask, which increases with the agreement above ``tau`` and the similarity of gradients.

    Differs from DomainBed: the threshold is at most halfway between full agreement and the next lower value, so a
    ``tau`` of 1 means full agreement (upstream's mask is then always zero, and nothing is trained).
    """

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        return {
            "tau": HParam(1.0, lambda rng: rng.uniform(0, 1), "minimal agreement", low=0, high=1),
            "k": HParam(10.0, lambda rng: 10 ** rng.uniform(-3, 5), "steepness of the mask", low=0),
        }

    def mask(self, gradients: Tensor) -> Tensor:
        threshold = min(self.hparams["tau"], 1 - 1 / len(gradients))
        centered = gradients - gradients.mean(dim=0)
        variance = centered.square().sum(dim=0) / max(1, len(gradients) - 1)  # Tensor.var takes 80 times as long
        steepness = self.hparams["k"] / variance.clamp_min(1e-17)
        return torch.tanh(steepness * (agreement(gradients) - threshold)).clamp_min(0)
