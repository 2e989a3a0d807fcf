"""MLDG — Li et al., 2018: meta-learn steps on some domains that also lower the loss on others."""

import copy
from collections.abc import Iterator, Sequence
from itertools import cycle

import torch
from torch import Tensor

from dg_batchformer.algorithms.base import Metrics, Minibatches, descend
from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.hparams import HParam
from dg_batchformer.networks.freezing import trainable


class MLDG(ERM):
    """Meta-learning for domain generalization, first order as in DomainBed.

    Sums over meta-train domains: the gradient of the domain, plus that of a meta-test domain after one step of a clone.
    With BatchFormer, the clone includes the encoder.

    Differs from DomainBed: ``n_meta_test`` leaves at least one domain for meta-training (upstream does not train with
    two training domains), and BatchNorm statistics are copied back from the clones (upstream's keep their initial
    values).
    """

    trains_clones = True
    min_domains = 2  # one to meta-train on, one to meta-test on
    attends = "per_domain"

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        return {
            "mldg_beta": HParam(1.0, lambda rng: 10 ** rng.uniform(-1, 1), "weight of the meta-test gradient", low=0),
            "n_meta_test": HParam(2, lambda rng: rng.choice([1, 2]), "meta-test domains per update", low=1),
        }

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        objective = torch.zeros((), device=minibatches[0][0].device)
        parameters = trainable(self.network)
        gradients = [torch.zeros_like(parameter) for parameter in parameters]
        for (x, y), (x_test, y_test) in self._meta_pairs(minibatches):
            clone = copy.deepcopy(self.network)
            risk = self.risk(clone(x), y)
            descend(self.new_optimizer(clone), risk)
            _add(gradients, [parameter.grad for parameter in trainable(clone)], 1 / len(minibatches))

            beta = self.hparams["mldg_beta"]
            test_risk = self.risk(clone(x_test), y_test)
            test_gradients = torch.autograd.grad(test_risk, trainable(clone), allow_unused=True)
            _add(gradients, test_gradients, beta / len(minibatches))
            objective += (risk + beta * test_risk).detach()
            for buffer, cloned in zip(self.network.buffers(), clone.buffers(), strict=True):
                buffer.copy_(cloned)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        return {"loss": objective / len(minibatches)}

    def _meta_pairs(self, minibatches: Minibatches) -> Iterator[tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]]:
        order = torch.randperm(len(minibatches)).tolist()
        n_meta_test = min(self.hparams["n_meta_test"], len(minibatches) - 1)
        meta_train, meta_test = order[:-n_meta_test], order[-n_meta_test:]
        for i, j in zip(meta_train, cycle(meta_test), strict=False):
            yield minibatches[i], minibatches[j]


def _add(totals: list[Tensor], gradients: Sequence[Tensor | None], weight: float) -> None:
    for total, gradient in zip(totals, gradients, strict=True):
        if gradient is not None:
            total.add_(gradient, alpha=weight)
