"""my_backbone (Author et al., 2030): two convolutions."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from dg_batchformer.networks.backbones import Backbone
from dg_batchformer.networks.base import FeaturizerModule, Stage


class MyBackbone(FeaturizerModule):
    """Two convolutions and a mean over the image: (N, C, H, W) -> (N, 32)."""

    n_outputs = 32

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 16, 3, stride=2, padding=1)
        self.second = nn.Conv2d(16, 32, 3, stride=2, padding=1)

    def stages(self) -> Mapping[str, Stage]:
        return {"first": nn.Sequential(self.first, nn.ReLU()), "second": nn.Sequential(self.second, nn.ReLU())}

    def head(self, maps: Tensor) -> Tensor:
        return maps.mean(dim=(2, 3))


def build(shape: Sequence[int], hparams: dict[str, Any]) -> MyBackbone:
    """Return the network for inputs of a shape (channels, height, width)."""
    return MyBackbone(shape[0])


BACKBONES = {"my_backbone": Backbone("two convolutions, 32 features", build)}
