"""EQRM — Eastwood et al., 2022: minimize a high quantile of the risk over domains."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Normal

from dg_batchformer.algorithms.base import Metrics, Minibatches, descend, forward_domains
from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.hparams import HParam


def smooth_quantile(values: Tensor, quantile: float, steps: int = 32) -> Tensor:
    """Compute a quantile of the Gaussian kernel density estimate of values: (n,) -> (); n must be at least 2.

    Uses bisection between the quantiles of the outermost kernels, without synchronizing with the device.
    """
    ordered = values.sort().values
    width = 1.06 * values.std() * len(values) ** -0.2
    q = torch.tensor(quantile)  # on the CPU: it enters operations as a number
    # Checks of the arguments would wait for the device.
    first, last, kernels = (Normal(mean, width, validate_args=False) for mean in (ordered[0], ordered[-1], ordered))
    low, high = first.icdf(q), last.icdf(q)
    left, right = torch.zeros_like(low), torch.ones_like(low)  # fractions of the interval from low to high
    with torch.no_grad():
        for _ in range(steps):
            middle = (left + right) / 2
            beyond = kernels.cdf(low + middle * (high - low)).mean() > q
            left, right = torch.where(beyond, left, middle), torch.where(beyond, middle, right)
    return low + (left + right) / 2 * (high - low)


class EQRM(ERM):
    """Empirical quantile risk minimization: minimize the mean risk during burn-in, then a quantile of the risks.

    With BatchFormer, the risk of an environment includes both streams.

    Differs from DomainBed: Adam is also reset if the burn-in is not an integer (as in every random draw). With one
    environment, its risk is the quantile.
    """

    compares_domains = True

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        return {
            "eqrm_quantile": HParam(
                0.75, lambda rng: rng.uniform(0.5, 0.99), "quantile to minimize", low=0.01, high=0.9999
            ),
            "eqrm_burnin_iters": HParam(
                2500.0, lambda rng: 10 ** rng.uniform(2.5, 3.5), "updates that minimize the mean", low=0
            ),
            "eqrm_lr": HParam(1e-6, lambda rng: 10 ** rng.uniform(-7, -5), "learning rate after the burn-in", low=0),
        }

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.updates = 0

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        logits = forward_domains(self.network, minibatches)
        risks = self.risks(logits, [y for _, y in minibatches])
        burnin = self.hparams["eqrm_burnin_iters"]
        if burnin <= self.updates < burnin + 1:
            self.optimizer = self.new_optimizer(self.network, lr=self.hparams["eqrm_lr"])
        burns_in = self.updates < burnin or len(risks) == 1
        loss = risks.mean() if burns_in else smooth_quantile(risks, self.hparams["eqrm_quantile"])
        descend(self.optimizer, loss)
        self.updates += 1
        return {"loss": loss.detach()}
