"""BatchFormer — Hou et al., CVPR 2022: a transformer layer across the samples of a mini-batch, in training only.

The layer sits between featurizer and classifier. While it is paired (see ``BatchFormer.paired_rows``) every
minibatch arrives as ``[n plain rows; n twin rows]``; the featurizer runs once, on the plain rows, and returns
its features z for them and BatchFormer(z) for their twins, in the same layout. Otherwise it is transparent.

BatchFormerV2 (Hou et al., 2022, arXiv 2204.01254) is the same layer behind a stage inside the featurizer: at every
token or position, the samples attend to each other. Up to there the featurizer runs on the plain rows alone; what
follows is shared and runs on both.
"""

import copy
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import gcd
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from dg_batchformer.errors import InputError
from dg_batchformer.networks.base import FeaturizerModule
from dg_batchformer.networks.insertion import POOLED, insertion
from dg_batchformer.seeds import seed_hash

SCOPES = ("joint", "per_domain", "sample")


class BatchFormer(nn.Module):
    """Encoder layers whose sequence is the batch: (domains, n, *positions, width) -> the same.

    Positions, if there are any, do not see each other: they are the batch of the attention, and share its weights.

    Args:
        width: of the features; also of the feed-forward part, as released.
        heads: asked for; the largest common divisor with the width is taken.
        layers: encoder layers; 0 leaves the features as they are (a control: twins equal plain rows).
        dropout: on attention weights and after each part.
        scope: what a sample attends to: ``joint`` all domains, ``per_domain`` its own,
            ``sample`` only itself (a control: the same layer with attention switched off).
        channels_first: whether the feature maps that it is given are (N, C, H, W).

    """

    def __init__(
        self, width: int, *, heads: int, layers: int, dropout: float, scope: str, channels_first: bool = False
    ) -> None:
        super().__init__()
        # Built one by one: nn.TransformerEncoder would copy one initialisation into every layer.
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, gcd(heads, width), width, dropout) for _ in range(layers)
        )
        self.scope = scope
        self.channels_first = channels_first
        self.paired_rows: int | None = None  # n while minibatches are [n plain; n twins], else None
        self.compares_rows = False  # whether twins are held against their plain rows, for code that may move rows

    @classmethod
    def of(cls, width: int, hparams: Mapping[str, Any], *, channels_first: bool = False) -> "BatchFormer":
        """Build it as the hparams of a run say."""
        return cls(
            width,
            heads=hparams["bf_heads"],
            layers=hparams["bf_layers"],
            dropout=hparams["bf_dropout"],
            scope=hparams["bf_scope"],
            channels_first=channels_first,
        )

    def forward(self, z: Tensor) -> Tensor:
        domains, n, *positions, width = z.shape
        if self.scope == "joint":
            sequence = z.reshape(domains * n, -1, width)
        elif self.scope == "per_domain":
            sequence = z.transpose(0, 1).reshape(n, -1, width)  # one sequence per domain and position
        else:
            sequence = z.reshape(1, -1, width)
        with sdpa_kernel(SDPBackend.MATH):  # the one whose gradients have gradients; sequences are short
            for layer in self.layers:
                sequence = layer(sequence)
        if self.scope == "per_domain":
            return sequence.reshape(n, domains, *positions, width).transpose(0, 1)
        return sequence.reshape(z.shape)

    def drop_twins(self, featurizer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """Forward pre-hook of the featurizer: keep the plain rows, so that the backbone runs once."""
        if self.paired_rows is None:
            return None
        x = inputs[0]
        if len(x) % (2 * self.paired_rows):
            raise InputError(
                f"BatchFormer cannot pair {len(x)} rows: it expects whole minibatches of {self.paired_rows} plain "
                f"rows and {self.paired_rows} twins; an algorithm that cuts or drops rows before its featurizer "
                "has to take the streams apart first (Algorithm.split_streams)"
            )
        if self.compares_rows:
            self._refuse_moved_rows(x.unflatten(0, (-1, 2, self.paired_rows)))
        starts = range(0, len(x), 2 * self.paired_rows)
        return (torch.cat([x[start : start + self.paired_rows] for start in starts]),)  # layout kept, copied once

    @staticmethod
    def _refuse_moved_rows(streams: Tensor) -> None:
        """Raise InputError where twins are not what their plain rows are, (domains, 2, n, ...)."""
        if not torch.allclose(streams[:, 0], streams[:, 1]):
            raise InputError(
                "BatchFormer cannot pair these rows, whose twins are no longer equal to them: the algorithm sorts, "
                "shuffles or changes rows before its featurizer, and has to take the streams apart first "
                "(Algorithm.split_streams)"
            )

    def add_pooled_twins(self, featurizer: nn.Module, inputs: tuple[Tensor, ...], z: Tensor) -> Tensor:
        """Forward hook of the featurizer: as ``add_twins``."""
        return self.add_twins(z)

    def add_twins(self, z: Tensor) -> Tensor:
        """Put attended twins beside plain rows, (domains * n, ...) -> (domains * 2 * n, ...)."""
        if self.paired_rows is None:
            return z
        z = z.movedim(1, -1) if self.channels_first else z
        plain = z.unflatten(0, (-1, self.paired_rows))  # (domains * n, ..., width) -> (domains, n, ..., width)
        both = torch.stack([plain, self(plain)], dim=1).flatten(0, 2)
        return both.movedim(-1, 1) if self.channels_first else both


def attach_batchformer(featurizer: nn.Module, hparams: dict[str, Any], input_shape: Sequence[int]) -> None:
    """Give a featurizer its BatchFormer, as the submodule ``batchformer``.

    What is hooked and inserted are bound methods, so that a deep copy of the featurizer is tied to its own copy of
    the encoder. The initialisation uses a generator of its own: the base algorithm's is the same with and without.
    """
    place = insertion(featurizer, hparams.get("bfv2_insert", POOLED), input_shape)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_hash("BatchFormer", torch.initial_seed()))
        batchformer = BatchFormer.of(place.width, hparams, channels_first=place.channels_first)
    featurizer.batchformer = batchformer
    featurizer.register_forward_pre_hook(batchformer.drop_twins)
    if place.stage == POOLED:
        featurizer.register_forward_hook(batchformer.add_pooled_twins)
    else:
        assert isinstance(featurizer, FeaturizerModule)
        featurizer.inserted = {place.stage: batchformer.add_twins}


def batchformers(module: nn.Module) -> list[BatchFormer]:
    """Return every BatchFormer inside a module."""
    return [layer for layer in module.modules() if isinstance(layer, BatchFormer)]


@contextmanager
def pairing(module: nn.Module, rows: int | None) -> Iterator[None]:
    """Pair minibatches of ``rows`` plain rows and as many twins for a while; None leaves BatchFormer out."""
    before = [(layer, layer.paired_rows) for layer in batchformers(module)]
    for layer, _ in before:
        layer.paired_rows = rows
    try:
        yield
    finally:
        for layer, paired in before:
            layer.paired_rows = paired


def without_batchformer(module: nn.Module) -> nn.Module:
    """Return a live view of a module without BatchFormer: the same parameters under the base algorithm's names."""
    if not batchformers(module):
        return module
    view = copy.copy(module)
    view._modules = OrderedDict(
        (name, child if child is None else without_batchformer(child))
        for name, child in module._modules.items()
        if not isinstance(child, BatchFormer)
    )
    if isinstance(module._modules.get("batchformer"), BatchFormer):
        view._forward_pre_hooks, view._forward_hooks = OrderedDict(), OrderedDict()
        if isinstance(view, FeaturizerModule):
            view.inserted = {}
    return view
