"""BF — BatchFormer, Hou et al., 2022: in training, the samples of a mini-batch attend to each other.

The wrapper pairs minibatches; the layer itself is in ``networks/batchformer.py``.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dg_batchformer.algorithms.base import Algorithm, Metrics, Minibatches
from dg_batchformer.errors import InputError
from dg_batchformer.hparams import HParam
from dg_batchformer.networks.batchformer import SCOPES, batchformers, pairing, without_batchformer
from dg_batchformer.wrappers.base import Wrapper


class BF(Wrapper):
    """The algorithm sees every sample twice: with its features and, as a twin, with those that attended the batch.

    Both streams share the classifier; ``Algorithm.risk`` weighs them. All else uses the plain stream alone:
    statistics, penalties and discriminators on features or gradients, masks, the choice of the worst environment.
    Methods that penalise or weigh the environments' risks take those of both streams, and say so. An update takes at
    most one optimizer step of the encoder. Outside ``update`` nothing of this is there: evaluation, averaging and the
    kept model are those of the algorithm without BF.

    A twin stream of weight 0 can change nothing but rounding, so then no twins are made.
    """

    acts_on = "features"

    @classmethod
    def settings(cls, dataset: str) -> dict[str, HParam]:
        return {
            "bf_heads": HParam(4, about="attention heads; the largest common divisor with the width", low=1),
            "bf_layers": HParam(1, about="encoder layers; 0 leaves twins as they are (a control)", low=0),
            "bf_dropout": HParam(0.5, about="dropout in the encoder", low=0, high=1),
            "bf_lr_scale": HParam(1.0, about="learning rate of the encoder over the algorithm's", low=0),
            "bf_scope": HParam(
                "joint",
                about="attend to: all domains, the sample's own, or only itself (a control)",
                choices=SCOPES,
            ),
            "bf_shared": HParam(True, about="false: in training the classifier sees only attended features"),
            "bf_loss_weight": HParam(
                0.5, about="weight of the twins' risk, the rest is the plain one's", low=0, high=1
            ),
        }

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        if not batchformers(self.inner):
            raise InputError(
                f"BF found no featurizer in {self.inner_class.__name__}: build it by networks.Featurizer, "
                "which BatchFormer attaches to"
            )
        if self._pairs:
            self.inner.check_pairing()
            for module in self.inner.modules():  # a wrapper inside is an algorithm around an algorithm
                if isinstance(module, Algorithm):
                    module.streams = 2

    @property
    def _pairs(self) -> bool:
        return not self.hparams["bf_shared"] or self.hparams["bf_loss_weight"] > 0

    @property
    def predictor(self) -> nn.Module:
        return without_batchformer(self.inner.predictor)

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        if not self._pairs:
            return self.inner.update(minibatches, unlabeled)
        sizes = {len(x) for x, _ in minibatches}
        if len(sizes) > 1:
            raise ValueError(f"BF pairs minibatches of one size, got sizes {sorted(sizes)}")
        with pairing(self.inner, sizes.pop()):
            return self.inner.update([(_twice(x), _twice(y)) for x, y in minibatches], unlabeled)


def _twice(rows: Tensor) -> Tensor:
    return torch.cat([rows, rows])
