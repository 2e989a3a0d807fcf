"""ResNet-18 and ResNet-50 as in DomainBed: torchvision's, without the last layer, followed by dropout.

BatchNorm with fixed statistics (frozen, or in evaluation mode) is fused into the convolution before it: scaling weights
and bias instead of activations saves one write of the activations.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet

from dg_batchformer.networks.base import Stage
from dg_batchformer.networks.batch_norm import FreezableBatchNorm

Fold = tuple[Tensor, Tensor]  # scale and shift, (channels,) each
_FOLDS: dict[nn.BatchNorm2d, Fold] = {}  # of the forward in progress


@contextmanager
def folded(norms: Sequence[nn.BatchNorm2d]) -> Iterator[None]:
    """Fold layers together inside the context: a dozen operations for all, where each layer alone would take six."""
    _FOLDS.update(zip(norms, fold(norms), strict=True))
    try:
        yield
    finally:
        for norm in norms:
            del _FOLDS[norm]


def fold(norms: Sequence[nn.BatchNorm2d]) -> list[Fold]:
    """Compute the scale and shift to which BatchNorm layers with fixed statistics reduce."""
    if not norms:
        return []
    mean, variance, weight, bias = (
        torch.cat([getattr(norm, name) for norm in norms]) for name in ("running_mean", "running_var", "weight", "bias")
    )
    channels = [norm.num_features for norm in norms]
    scale = weight * (variance + norms[0].eps).rsqrt()
    shift = bias - mean * scale
    device = shift.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        shift = shift.to(torch.get_autocast_dtype(device))  # together, where F.conv2d would cast layer by layer
    return list(zip(scale.split(channels), shift.split(channels), strict=True))


def convolve_and_normalise(convolution: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Convolve, then normalize: (N, C, H, W) -> (N, D, H', W'); fused if the statistics are fixed."""
    if norm.training:
        return norm(convolution(x))
    scale, shift = _FOLDS[norm] if norm in _FOLDS else fold([norm])[0]
    return F.conv2d(
        x,
        convolution.weight * scale[:, None, None, None],
        shift,
        convolution.stride,
        convolution.padding,
        convolution.dilation,
        convolution.groups,
    )


def _shortcut(downsample: nn.Sequential | None, x: Tensor) -> Tensor:
    if downsample is None:
        return x
    convolution, norm = downsample
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    return convolve_and_normalise(convolution, norm, x)


class _BasicBlock(resnet.BasicBlock):
    def forward(self, x: Tensor) -> Tensor:
        z = self.relu(convolve_and_normalise(self.conv1, self.bn1, x))
        z = convolve_and_normalise(self.conv2, self.bn2, z)
        z += _shortcut(self.downsample, x)
        return self.relu(z)


class _Bottleneck(resnet.Bottleneck):
    def forward(self, x: Tensor) -> Tensor:
        z = self.relu(convolve_and_normalise(self.conv1, self.bn1, x))
        z = self.relu(convolve_and_normalise(self.conv2, self.bn2, z))
        z = convolve_and_normalise(self.conv3, self.bn3, z)
        z += _shortcut(self.downsample, x)
        return self.relu(z)


_LAYOUTS = {"resnet18": (_BasicBlock, [2, 2, 2, 2]), "resnet50": (_Bottleneck, [3, 4, 6, 3])}


class ResNet(FreezableBatchNorm):
    """torchvision's ResNet: (N, C, H, W) -> (N, 512 or 2048); a stem and four stages of residual blocks.

    Args:
        name: ``resnet18`` or ``resnet50``.
        channels: input channels; pretrained weights of the first layer are repeated beyond three.
        dropout: on the pooled features.

    """

    has_stem = True

    def __init__(self, name: str, channels: int, dropout: float) -> None:
        super().__init__()
        block, layers = _LAYOUTS[name]
        self.network = resnet.ResNet(block, layers)
        self.n_outputs: int = self.network.fc.in_features
        self.network.fc = nn.Identity()
        if channels != 3:
            self.network.conv1 = nn.Conv2d(channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.network.to(memory_format=torch.channels_last)  # faster convolutions
        self.dropout = nn.Dropout(dropout)

    def features(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():  # which fuses the operations of every layer
            return super().features(x)
        fixed = [layer for layer in self.modules() if isinstance(layer, nn.BatchNorm2d) and not layer.training]
        with folded(fixed):
            return super().features(x)

    def stages(self) -> Mapping[str, Stage]:
        layers = ("layer1", "layer2", "layer3", "layer4")
        return {"stem": self._stem, **{name: getattr(self.network, name) for name in layers}}

    def head(self, maps: Tensor) -> Tensor:
        return self.network.avgpool(maps).flatten(1)

    def drop(self, z: Tensor) -> Tensor:
        return self.dropout(z)

    def _stem(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        network = self.network
        return network.maxpool(network.relu(convolve_and_normalise(network.conv1, network.bn1, x)))

    def load_pretrained(self, state: dict[str, Tensor]) -> None:
        """Load a state dict in torchvision's layout, without the last layer."""
        state = {name: value for name, value in state.items() if not name.startswith("fc.")}
        channels = self.network.conv1.in_channels
        if channels != 3 and "conv1.weight" in state:
            state["conv1.weight"] = state["conv1.weight"][:, [channel % 3 for channel in range(channels)]]
        self.network.load_state_dict(state)
