"""Small convolutional featurizers without BatchNorm: DomainBed's for MNIST, one for 32 px, one for tests."""

from collections.abc import Mapping
from functools import partial

from torch import Tensor, nn

from dg_batchformer.networks.base import FeaturizerModule, Stage


class MnistCnn(FeaturizerModule):
    """DomainBed's ``MNIST_CNN``: (N, C, H, W) -> (N, 128); four convolutions, each with ReLU before GroupNorm."""

    n_outputs = 128

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 64, 3, padding=1)
        self.conv2 = nn.Conv2d(64, 128, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(128, 128, 3, padding=1)
        self.conv4 = nn.Conv2d(128, 128, 3, padding=1)
        self.bn0 = nn.GroupNorm(8, 64)
        self.bn1 = nn.GroupNorm(8, 128)
        self.bn2 = nn.GroupNorm(8, 128)
        self.bn3 = nn.GroupNorm(8, 128)

    def stages(self) -> Mapping[str, Stage]:
        convolutions = (self.conv1, self.conv2, self.conv3, self.conv4)
        norms = {"bn0": self.bn0, "bn1": self.bn1, "bn2": self.bn2, "bn3": self.bn3}
        pairs = zip(convolutions, norms.items(), strict=True)
        return {name: partial(_convolve, convolution, norm) for convolution, (name, norm) in pairs}

    def head(self, maps: Tensor) -> Tensor:
        return maps.mean(dim=(2, 3))


def _convolve(convolution: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    return norm(convolution(x).relu())


def _block(channels: int, width: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(8, width), nn.ReLU())


class SmallCnn(FeaturizerModule):
    """Three convolutions and a linear layer on a 4 x 4 grid: (N, C, H, W) -> (N, 128); fast on a CPU at 32 px."""

    n_outputs = 128

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(_block(channels, 32), _block(32, 64), _block(64, 64))
        self.grid = nn.AdaptiveAvgPool2d(4)
        self.output = nn.Linear(64 * 4 * 4, 128)

    def stages(self) -> Mapping[str, Stage]:
        return {f"blocks.{index}": block for index, block in enumerate(self.blocks)}

    def head(self, maps: Tensor) -> Tensor:
        return self.output(self.grid(maps).flatten(1)).relu()


class TinyCnn(FeaturizerModule):
    """One convolution on 8 x 8 average-pooled images: (N, C, H, W) -> (N, 16); for tests."""

    n_outputs = 16

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.AdaptiveAvgPool2d(8), _block(channels, 16))

    def stages(self) -> Mapping[str, Stage]:
        return {f"layers.{index}": layer for index, layer in enumerate(self.layers)}

    def head(self, maps: Tensor) -> Tensor:
        return maps.mean(dim=(2, 3))
