"""What BatchFormer does to batches of held-out images: attention, gradients and features, measured together.

All is in evaluation mode: BatchFormer's dropout, 0.5 by default, would add noise to every weight that is measured here,
and features are those that the model is tested with.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from dg_batchformer.explain.attention import recorded_attention, relative_to_uniform
from dg_batchformer.explain.gradients import gradient_magnitudes, stream_losses
from dg_batchformer.explain.held_out import HeldOut, draw_batches, progress
from dg_batchformer.explain.load import Kept
from dg_batchformer.explain.pairs import PairMeans

BATCHES = 32  # of 128 images on PACS: 500,000 pairs, and means are steady in the second digit
LOSSES = 16  # of a batch, whose gradients are taken: each costs a backward pass through BatchFormer


class Measured(NamedTuple):
    """What was measured.

    Args:
        n: images of every domain in a batch.
        attention: of every layer, relative to uniform attention.
        gradients: of the stream behind BatchFormer. plain_gradients: of the stream without it.
        rows: of the held-out images that were in some batch. attended: their features behind BatchFormer, means over
            the batches that each was in: a batch moves all its samples together.

    """

    n: int
    attention: list[PairMeans]
    gradients: PairMeans
    plain_gradients: PairMeans
    rows: Tensor
    attended: Tensor


def measure(kept: Kept, held_out: HeldOut, batches: int = BATCHES) -> Measured:
    """Let BatchFormer attend to batches of held-out images, and look on."""

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
    """Take the gradients of the first losses of every domain, in both streams."""
    count, n, _ = z.shape
    rows = torch.arange(count * n).view(count, n)[:, : -(-LOSSES // count)].flatten()
    labels = classes.flatten().to(z.device)
    for means, attend in zip(streams, (kept.batchformer, torch.nn.Identity()), strict=True):
        magnitudes = gradient_magnitudes(stream_losses(kept.logits, attend, labels), z, rows)
        means.add(magnitudes[None], rows, domains.reshape(1, -1), classes.reshape(1, -1))
