"""BFv2 — BatchFormerV2, Hou et al., 2022: in training, samples attend to each other at every token or position."""

from dg_batchformer.hparams import HParam
from dg_batchformer.networks.insertion import AUTO
from dg_batchformer.wrappers.batchformer import BF


class BFv2(BF):
    """BatchFormer inside the featurizer, behind one block of a transformer or one stage of a ResNet.

    At each of its T tokens or positions the samples of the batch attend to each other, and positions share the module.
    Plain and attended rows go on through the same further blocks, to pooled features and classifier; nothing of it is
    left at test time. Inserted at the pooled features it is BF. The class token of a transformer attends like any
    other token.

    What follows the block runs on twice the rows. Attention over a batch of N samples takes T * heads * N^2 weights
    for each layer: in fp32 30 MB for the 197 tokens of a ViT at 224 px with N = 96 and 4 heads, 116 MB behind layer2
    of a ResNet (28 x 28), 460 MB behind layer1. Where BatchNorm behind the block is live, its statistics are of both
    streams. Training runs uncompiled; evaluation does not.
    """

    @classmethod
    def settings(cls, dataset: str) -> dict[str, HParam]:
        return {
            **super().settings(dataset),
            "bfv2_insert": HParam(
                AUTO,
                about="the block whose output attends, as blocks.8 or layer3; auto: two thirds down; pooled: as BF",
            ),
        }
