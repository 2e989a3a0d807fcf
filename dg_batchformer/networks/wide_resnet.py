"""Wide ResNet 16-2 — Zagoruyko & Komodakis, 2016: DomainBed's featurizer for 32 x 32 images."""

from collections.abc import Mapping

from torch import Tensor, nn

from dg_batchformer.networks.base import Stage
from dg_batchformer.networks.batch_norm import FreezableBatchNorm


class _Block(nn.Module):
    """Pre-activation residual block."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1)
        changes = stride != 1 or channels != width
        self.shortcut = nn.Conv2d(channels, width, 1, stride=stride) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(self.bn1(x).relu())
        return self.conv2(self.bn2(out).relu()) + self.shortcut(x)


class WideResNet(FreezableBatchNorm):
    """Wide ResNet of depth 16 and width factor 2: (N, C, 32, 32) -> (N, 128)."""

    n_outputs = 128
    has_stem = True

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1)
        self.layer1 = nn.Sequential(_Block(16, 32, 1), _Block(32, 32, 1))
        self.layer2 = nn.Sequential(_Block(32, 64, 2), _Block(64, 64, 1))
        self.layer3 = nn.Sequential(_Block(64, 128, 2), _Block(128, 128, 1))
        self.bn1 = nn.BatchNorm2d(128, momentum=0.9)

    def stages(self) -> Mapping[str, Stage]:
        return {"conv1": self.conv1, "layer1": self.layer1, "layer2": self.layer2, "layer3": self.layer3}

    def head(self, maps: Tensor) -> Tensor:
        return self.bn1(maps).relu().mean(dim=(2, 3))
