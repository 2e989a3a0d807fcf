"""BFv2 — BatchFormerV2, Hou et al., 2022: samples attend to each other at every token or position during training."""

from dg_batchformer.hparams import HParam
from dg_batchformer.networks.insertion import AUTO
from dg_batchformer.wrappers.batchformer import BF


class BFv2(BF):
    """BatchFormer inside the featurizer, after one block of a transformer or one stage of a ResNet.

    At each of the T tokens or positions, the samples of the batch attend to each other; all positions share the module.
    Plain and attended rows then pass through the same remaining blocks, pooling and classifier. BatchFormer is removed
    at test time. Inserted at the pooled features, it is the same as BF. The class token of a transformer is treated
    like any other token.

    Later blocks process twice the rows. Attention over N samples needs T * heads * N^2 weights per layer: in fp32 with
    N = 96 and 4 heads, 30 MB for the 197 tokens of a ViT at 224 px, 116 MB after layer2 of a ResNet (28 x 28), 460 MB
    after layer1. BatchNorm in later blocks, unless frozen, computes its statistics over both streams. Training is not
    compiled; evaluation can be.
    """

    @classmethod
    def settings(cls, dataset: str) -> dict[str, HParam]:
        return {
            **super().settings(dataset),
            "bfv2_insert": HParam(
                AUTO,
                about="the block to insert after, such as blocks.8 or layer3; auto: two thirds down; pooled: as BF",
            ),
        }
