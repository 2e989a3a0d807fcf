"""BF — BatchFormer, Hou et al., 2022: the samples of a mini-batch attend to each other during training.

This wrapper pairs minibatches; the layer is in ``networks/batchformer.py``.
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
    """Give the algorithm every sample twice: with its own features and, as a twin, with attended features.

    Both streams share the classifier; ``Algorithm.risk`` weighs them. Everything else uses the plain stream only:
    statistics, penalties and discriminators on features or gradients, masks, and the choice of the worst environment.
    Methods that penalize or weigh the risks of environments use both streams, as their docstrings say. An update makes
    at most one optimizer step of the encoder. BatchFormer is active only in ``update``: evaluation, averaging and the
    kept model are those of the algorithm without BF.

    With a twin weight of 0, twins could change nothing but rounding, so they are not created.
    """

    acts_on = "features"

    @classmethod
    def settings(cls, dataset: str) -> dict[str, HParam]:
        return {
            "bf_heads": HParam(4, about="attention heads at most; their number divides the width", low=1),
            "bf_layers": HParam(1, about="encoder layers; 0: twins equal plain rows (a control)", low=0),
            "bf_dropout": HParam(0.5, about="dropout in the encoder", low=0, high=1),
            "bf_lr_scale": HParam(1.0, about="learning rate of the encoder, relative to the algorithm's", low=0),
            "bf_scope": HParam(
                "joint",
                about="attend to samples of all domains, of the same domain, or only to the sample itself (a control)",
                choices=SCOPES,
            ),
            "bf_shared": HParam(True, about="share the classifier; false: train it on attended features only"),
            "bf_loss_weight": HParam(0.5, about="weight of the twins' risk; plain rows get the rest", low=0, high=1),
        }

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        if not batchformers(self.inner):
            raise InputError(
                f"BF found no featurizer in {self.inner_class.__name__}: build it with networks.Featurizer, "
                "to which BatchFormer is attached"
            )
        if self._pairs:
            self.inner.check_pairing()
            for module in self.inner.modules():  # including wrapped algorithms
                if isinstance(module, Algorithm):
                    module.streams = 2

    @property
    def _pairs(self) -> bool:
        return not self.hparams["bf_shared"] or self.hparams["bf_loss_weight"] > 0

    @property
    def predictor(self) -> nn.Module:
        return without_batchformer(self.inner.predictor)

    def materialize(self, step: int) -> None:
        with pairing(self.inner, self.hparams["batch_size"] if self._pairs else None):
            self.inner.materialize(step)

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        if not self._pairs:
            return self.inner.update(minibatches, unlabeled)
        sizes = {len(x) for x, _ in minibatches}
        if len(sizes) > 1:
            raise ValueError(f"BF needs minibatches of equal size, got sizes {sorted(sizes)}")
        with pairing(self.inner, sizes.pop()):
            return self.inner.update([(_twice(x), _twice(y)) for x, y in minibatches], unlabeled)


def _twice(rows: Tensor) -> Tensor:
    return torch.cat([rows, rows])
