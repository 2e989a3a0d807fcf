"""Measure attention, gradients and features of BatchFormer on batches of held-out images.

All modules are in evaluation mode: BatchFormer's dropout, 0.5 by default, would add noise to the attention weights, and
the features should be those of test time.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from dg_batchformer.explain.held_out import HeldOut, draw_batches, progress
from dg_batchformer.explain.load import Kept
from dg_batchformer.explain.pairs import PairMeans
from dg_batchformer.explain.quantities import (
    gradient_magnitudes,
    recorded_attention,
    relative_to_uniform,
    stream_losses,
)

BATCHES = 32  # 128 images each on PACS: 500,000 pairs, enough for two stable digits
LOSSES = 16  # losses per batch to differentiate: each costs a backward pass through BatchFormer


class Measured(NamedTuple):
    """The measurements.

    Args:
        n: images per domain in a batch.
        attention: by layer, relative to uniform attention.
        gradients: of the stream behind BatchFormer. plain_gradients: of the stream without it.
        rows: indices of the held-out images that were in at least one batch.
        attended: features of these images behind BatchFormer, averaged over the batches that contain them.

    """

    n: int
    attention: list[PairMeans]
    gradients: PairMeans
    plain_gradients: PairMeans
    rows: Tensor
    attended: Tensor


def measure(kept: Kept, held_out: HeldOut, batches: int = BATCHES) -> Measured:
    """Measure BatchFormer on ``batches`` batches of held-out images."""

    def means() -> PairMeans:
        return PairMeans(len(kept.domains), len(kept.classes))

    attention = [means() for _ in kept.batchformer.layers]
    gradients, plain_gradients = means(), means()
    sums, counts = torch.zeros_like(held_out.z), torch.zeros(len(held_out.z), 1, device=held_out.z.device)
    drawn = draw_batches(held_out.domains, kept.hparams["batch_size"], batches)
    for rows in progress(drawn, batches, "attention and gradients"):
        z, classes, domains = held_out.z[rows], held_out.classes[rows], held_out.domains[rows]
        with torch.no_grad(), recorded_attention(kept.batchformer) as weights:
            twins = kept.batchformer(z)
        for layer, of_layer in zip(attention, weights, strict=True):
            sequences, length, _ = of_layer.shape
            labels = (x.reshape(sequences, length) for x in (domains, classes))
            layer.add(relative_to_uniform(of_layer), torch.arange(length), *labels)
        _add_gradients(kept, (gradients, plain_gradients), z, classes, domains)
        sums[rows.flatten()] += twins.flatten(0, 1)
        counts[rows.flatten()] += 1
    seen = torch.nonzero(counts[:, 0].cpu()).flatten()
    attended = (sums / counts)[seen.to(sums.device)].cpu()
    return Measured(rows.shape[1], attention, gradients, plain_gradients, seen, attended)


def _add_gradients(
    kept: Kept, streams: tuple[PairMeans, PairMeans], z: Tensor, classes: Tensor, domains: Tensor
) -> None:
    """Add the gradients of the first few losses of every domain, in both streams."""
    count, n, _ = z.shape
    rows = torch.arange(count * n).view(count, n)[:, : -(-LOSSES // count)].flatten()
    labels = classes.flatten().to(z.device)
    for means, attend in zip(streams, (kept.batchformer, torch.nn.Identity()), strict=True):
        magnitudes = gradient_magnitudes(stream_losses(kept.logits, attend, labels), z, rows)
        means.add(magnitudes[None], rows, domains.reshape(1, -1), classes.reshape(1, -1))
