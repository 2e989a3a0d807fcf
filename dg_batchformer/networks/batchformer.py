"""BatchFormer — Hou et al., CVPR 2022: a transformer encoder across the samples of a mini-batch, in training only.

It sits between featurizer and classifier. While pairing is on (see ``BatchFormer.paired_rows``), every minibatch is
``[n plain rows; n twin rows]``. The featurizer runs once, on the plain rows, and returns its features z for them and
BatchFormer(z) for their twins, in the same layout. While pairing is off, BatchFormer does nothing.

BatchFormerV2 (Hou et al., 2022, arXiv 2204.01254) inserts the same layer after a stage inside the featurizer: at every
token or position, the samples attend to each other. Earlier stages run on the plain rows only; later stages share their
weights and run on both streams.
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
    """Encoder layers with the batch as their sequence; keeps the shape (domains, n, *positions, width).

    Positions do not attend to each other: they form the batch dimension of the attention.

    Args:
        width: of the features, and of the feed-forward block, as in the released code.
        heads: upper bound on the number of heads, which is its greatest common divisor with ``width``.
        layers: encoder layers; 0 returns the features unchanged (a control: twins equal plain rows).
        dropout: on attention weights and after each sublayer.
        scope: which samples a sample attends to: ``joint`` those of all domains, ``per_domain`` those of its own,
            ``sample`` only itself (a control: the same layer without attention to others).
        channels_first: whether feature maps are (N, C, H, W).

    """

    def __init__(
        self, width: int, *, heads: int, layers: int, dropout: float, scope: str, channels_first: bool = False
    ) -> None:
        super().__init__()
        # Built one by one: nn.TransformerEncoder would copy one initialization into every layer.
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, gcd(heads, width), width, dropout) for _ in range(layers)
        )
        self.scope = scope
        self.channels_first = channels_first
        self.paired_rows: int | None = None  # n if minibatches are [n plain; n twins], else None
        self.compares_rows = False  # whether to check that twins equal their plain rows, for plug-ins that may reorder

    @classmethod
    def of(cls, width: int, hparams: Mapping[str, Any], *, channels_first: bool = False) -> "BatchFormer":
        """Build a BatchFormer from the hparams of a run."""
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
        with sdpa_kernel(SDPBackend.MATH):  # the only backend with double backward; sequences are short
            for layer in self.layers:
                sequence = layer(sequence)
        if self.scope == "per_domain":
            return sequence.reshape(n, domains, *positions, width).transpose(0, 1)
        return sequence.reshape(z.shape)

    def drop_twins(self, featurizer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """Drop the twins from a featurizer's input, so that the backbone runs once; a forward pre-hook.

        Raises InputError if the rows are not whole minibatches of plain rows and twins.
        """
        if self.paired_rows is None:
            return None
        x = inputs[0]
        if len(x) % (2 * self.paired_rows):
            raise InputError(
                f"BatchFormer cannot pair {len(x)} rows: it expects whole minibatches of {self.paired_rows} plain "
                f"rows and {self.paired_rows} twins; an algorithm that splits or drops rows before its featurizer "
                "must separate the streams first (Algorithm.split_streams)"
            )
        if self.compares_rows:
            self._refuse_moved_rows(x.unflatten(0, (-1, 2, self.paired_rows)))
        starts = range(0, len(x), 2 * self.paired_rows)
        return (torch.cat([x[start : start + self.paired_rows] for start in starts]),)  # one copy, same memory format

    @staticmethod
    def _refuse_moved_rows(streams: Tensor) -> None:
        """Raise InputError unless twins equal their plain rows; streams are (domains, 2, n, ...)."""
        if not torch.allclose(streams[:, 0], streams[:, 1]):
            raise InputError(
                "BatchFormer cannot pair these rows, as twins differ from their plain rows: an algorithm that sorts, "
                "shuffles or changes rows before its featurizer must separate the streams first "
                "(Algorithm.split_streams)"
            )

    def add_pooled_twins(self, featurizer: nn.Module, inputs: tuple[Tensor, ...], z: Any) -> Any:
        """Call ``add_twins`` on the features that a featurizer returns; a forward hook.

        Some featurizers return a tuple whose first item is the features; the others, such as feature maps for a
        penalty, stay those of the plain rows.
        """
        return (self.add_twins(z[0]), *z[1:]) if isinstance(z, tuple) else self.add_twins(z)

    def add_twins(self, z: Tensor) -> Tensor:
        """Append attended twins to plain rows: (domains * n, ...) -> (domains * 2 * n, ...)."""
        if self.paired_rows is None:
            return z
        z = z.movedim(1, -1) if self.channels_first else z
        plain = z.unflatten(0, (-1, self.paired_rows))  # (domains * n, ..., width) -> (domains, n, ..., width)
        both = torch.stack([plain, self(plain)], dim=1).flatten(0, 2)
        return both.movedim(-1, 1) if self.channels_first else both


def attach_batchformer(featurizer: nn.Module, hparams: dict[str, Any], input_shape: Sequence[int]) -> None:
    """Attach a BatchFormer to a featurizer, as the submodule ``batchformer``.

    Hooks are bound methods, so that a deep copy of the featurizer uses its own copy of the encoder. Initialization has
    its own random generator, so the base algorithm starts from the same weights with and without BatchFormer.
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
    """Pair minibatches of ``rows`` plain rows and as many twins inside the context; None turns BatchFormer off."""
    before = [(layer, layer.paired_rows) for layer in batchformers(module)]
    for layer, _ in before:
        layer.paired_rows = rows
    try:
        yield
    finally:
        for layer, paired in before:
            layer.paired_rows = paired


def without_batchformer(module: nn.Module) -> nn.Module:
    """Return a view of a module without BatchFormer, which shares parameters and has the base algorithm's names."""
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
