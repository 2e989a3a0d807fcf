"""What featurizers around a library's network share: hooks at its stages, and how their images are normalised."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dg_batchformer.hparams import WHOLE
from dg_batchformer.networks.batch_norm import FreezableBatchNorm

# What the suite has normalised images by when they arrive.
_ARRIVING_MEAN, _ARRIVING_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class LibraryFeaturizer(FreezableBatchNorm):
    """A network between whose stages only its library knows what lies; then dropout, (N, C, H, W) -> (N, n_outputs).

    A subclass returns its ``stages``, modules of the network, and computes ``pooled``.
    """

    state_is_weights = True  # such networks hold much that no checkpoint can keep, and none that changes
    splits_at_stages = False
    network: Any  # networks of a library share an interface, but no base class that declares it
    dropout: nn.Module

    def pooled(self, x: Tensor) -> Tensor:
        """Return the features without dropout, from images as they arrive."""
        raise NotImplementedError

    def prefix(self, x: Tensor) -> Tensor:
        if self.frozen != WHOLE:
            return x
        with torch.no_grad():
            return self._hooked(x)

    def rest(self, x: Tensor) -> Tensor:
        return self.drop(x if self.frozen == WHOLE else self._hooked(x))

    def drop(self, z: Tensor) -> Tensor:
        return self.dropout(z)

    def _hooked(self, x: Tensor) -> Tensor:
        with self._acting_behind_stages():
            return self.pooled(x)

    @contextmanager
    def _acting_behind_stages(self) -> Iterator[None]:
        """Hook ``behind`` to the stages for a forward, where it does anything.

        Not for longer: a copy or a view of the featurizer would be tied to what acts in this one.
        """
        handles = []
        if self.after_stage or self.inserted:
            for place, (name, stage) in enumerate(self.stages().items()):
                act = partial(self.behind, place, name)
                assert isinstance(stage, nn.Module)
                handles.append(stage.register_forward_hook(lambda module, inputs, maps, act=act: act(maps)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def renormalisation(channels: int, mean: Sequence[float] | None, std: Sequence[float] | None) -> tuple[Tensor, Tensor]:
    """Return scale and shift, (C, 1, 1) each, from what images arrive as to statistics of colours; None keeps them."""
    scale, shift = torch.ones(channels, 1, 1), torch.zeros(channels, 1, 1)
    if mean is not None and std is not None and channels >= 3:  # a context channel may follow the colours
        wanted_mean, wanted_std = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
        given_mean, given_std = (torch.tensor(values).view(3, 1, 1) for values in (_ARRIVING_MEAN, _ARRIVING_STD))
        scale[:3], shift[:3] = given_std / wanted_std, (given_mean - wanted_mean) / wanted_std
    return scale, shift


def cut_patches(size: int, patch: int) -> str:
    """Return sizes of images that patches cover, as text; '' where they cover this one."""
    if size % patch == 0:
        return ""
    below = size // patch * patch
    return " or ".join(str(one) for one in (below, below + patch) if one)
