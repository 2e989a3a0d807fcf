"""WiSE — Wortsman et al., CVPR 2022: interpolate between the initial and the final weights."""

from collections.abc import Iterable

import torch
from torch import Tensor

from dg_batchformer.algorithms.base import Algorithm
from dg_batchformer.hparams import HParam
from dg_batchformer.wrappers.averaging import WeightAveraging


class WiSE(WeightAveraging):
    """Weight-space ensemble: with w_0 the first weights of the predictor and w_T the last, ``(1 - a) w_0 + a w_T``.

    w_0 is what the hparam ``init`` says: with ``zero_shot``, CLIP and the classifier that its text features make, as in
    the paper. The ensemble is one record more, at the end. ``wise_alpha`` 0 is w_0, 1 is w_T.
    """

    @classmethod
    def settings(cls, dataset: str) -> dict[str, HParam]:
        return {
            "wise_alpha": HParam(0.5, about="share of the last weights; the rest is the first ones'", low=0, high=1)
        }

    def start_average(self) -> None:
        self.first: list[Tensor] = []

    def before_update(self) -> None:
        if not self.first:  # now, that initial weights are loaded
            self.first = [weight.detach().clone() for weight in self.weights()]

    def finalize(self, batches: Iterable[Tensor]) -> Algorithm:
        super().finalize(batches)
        alpha = self.hparams["wise_alpha"]
        last = [weight.detach() for weight in self.weights()]
        self.take(torch._foreach_lerp(self.first, last, alpha), batches)
        self.summary = {**self.summary, "wise_alpha": alpha}
        return self
