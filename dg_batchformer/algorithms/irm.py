"""IRM — Arjovsky et al., 2019: features on which one classifier is optimal in every environment."""

import torch
from torch import Tensor

from dg_batchformer.algorithms.annealed import Anneal, AnnealedPenalty
from dg_batchformer.algorithms.base import Metrics, Minibatches, forward_domains


class IRM(AnnealedPenalty):
    """Invariant risk minimisation: the risk's gradient with respect to a scale of the logits is penalised.

    Its square is estimated without bias by the product over two halves of a minibatch. Under BatchFormer
    an environment's risk, and so the penalty, is of both streams; the halves are taken inside each stream, so that no
    sample is in both.
    """

    penalties = {"irm": Anneal(weight=100.0, before=1.0)}

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        logits = forward_domains(self.network, minibatches)
        risk = self.risks(logits, [y for _, y in minibatches]).mean()
        penalty = self.invariance_penalty(logits, [y for _, y in minibatches])
        loss = self.descend_with(risk, irm=penalty)
        return {"loss": loss, "nll": risk.detach(), "penalty": penalty.detach()}

    def invariance_penalty(self, logits: list[Tensor], labels: list[Tensor]) -> Tensor:
        """Return the mean over environments of the squared gradient of the risk by a scale of the logits."""
        return torch.stack([self._penalty(z, y) for z, y in zip(logits, labels, strict=True)]).mean()

    def _penalty(self, logits: Tensor, y: Tensor) -> Tensor:
        scale = torch.ones((), device=logits.device, requires_grad=True)
        gradients = []
        for half in (slice(0, None, 2), slice(1, None, 2)):
            risk = self.risk(self._take(logits, half) * scale, self._take(y, half))
            gradients.append(torch.autograd.grad(risk, scale, create_graph=True)[0])
        return gradients[0] * gradients[1]

    def _take(self, rows: Tensor, half: slice) -> Tensor:
        plain, twin = self.split_streams(rows)
        return plain[half] if twin is None else torch.cat([plain[half], twin[half]])
