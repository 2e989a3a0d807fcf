"""IRM — Arjovsky et al., 2019: features for which the same classifier is optimal in every environment."""

import torch
from torch import Tensor

from dg_batchformer.algorithms.annealed import Anneal, AnnealedPenalty
from dg_batchformer.algorithms.base import Metrics, Minibatches, forward_domains


class IRM(AnnealedPenalty):
    """Invariant risk minimization: penalize the squared gradient of the risk with respect to a scale of the logits.

    The product over two halves of a minibatch is an unbiased estimate of the square. With BatchFormer, the risk of an
    environment, and so the penalty, includes both streams; each stream is halved alike, so that no sample is in both
    halves.
    """

    penalties = {"irm": Anneal(weight=100.0, before=1.0)}

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        logits = forward_domains(self.network, minibatches)
        risk = self.risks(logits, [y for _, y in minibatches]).mean()
        penalty = self.invariance_penalty(logits, [y for _, y in minibatches])
        loss = self.descend_with(risk, irm=penalty)
        return {"loss": loss, "nll": risk.detach(), "penalty": penalty.detach()}

    def invariance_penalty(self, logits: list[Tensor], labels: list[Tensor]) -> Tensor:
        """Compute the mean squared gradient of the risk with respect to a scale of the logits, over environments."""
        return torch.stack(
            [self._penalty(z, y, env) for env, (z, y) in enumerate(zip(logits, labels, strict=True))]
        ).mean()

    def _penalty(self, logits: Tensor, y: Tensor, env: int) -> Tensor:
        scale = torch.ones((), device=logits.device, requires_grad=True)
        gradients = []
        for half in (slice(0, None, 2), slice(1, None, 2)):
            risk = self.risk(self.take_half(logits, half) * scale, self.take_half(y, half), env=env)
            gradients.append(torch.autograd.grad(risk, scale, create_graph=True)[0])
        return gradients[0] * gradients[1]

    def take_half(self, rows: Tensor, half: slice) -> Tensor:
        plain, twin = self.split_streams(rows)
        return plain[half] if twin is None else torch.cat([plain[half], twin[half]])
