"""ResNet-18 and ResNet-50 as in DomainBed: torchvision's, without the last layer, followed by dropout.

BatchNorm with fixed statistics (frozen, or in evaluation mode) is fused into the convolution before it: scaling weights
and bias instead of activations saves one write of the activations.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet

from dg_batchformer.networks.base import Stage
from dg_batchformer.networks.batch_norm import FreezableBatchNorm

Layer = tuple[nn.Conv2d, nn.BatchNorm2d]
Folded = tuple[Tensor, Tensor]  # weight and bias of a convolution that includes its BatchNorm
_FOLDED: dict[nn.BatchNorm2d, Folded] = {}  # of the forward in progress
_LAUNCH_BOUND_DEVICES = ("cuda", "meta")  # devices where a few large operations are faster than many small ones


@contextmanager
def folded(layers: Sequence[Layer]) -> Iterator[None]:
    """Fold layers together inside the context: on a GPU in a few operations per shape, not a dozen per layer."""
    _FOLDED.update(fold(layers) if layers else {})
    try:
        yield
    finally:
        for _, norm in layers:
            del _FOLDED[norm]


def fold(layers: Sequence[Layer]) -> dict[nn.BatchNorm2d, Folded]:
    """Fold BatchNorm layers with fixed statistics into the convolutions before them.

    Weights are scaled as rows of matrices, on a GPU those of all layers with equally long rows together; a CPU would
    lose more by copying them into one matrix.
    """
    groups = _alike(layers)
    scales, shifts = _scales_and_shifts([norm for group in groups for _, norm in group])
    dtype = _convolved_dtype(shifts)  # cast together, where F.conv2d would cast layer by layer
    weights: list[Tensor] = []
    channels = [sum(norm.num_features for _, norm in group) for group in groups]
    for group, scale in zip(groups, scales.split(channels), strict=True):
        matrices = [_rows(convolution) for convolution, _ in group]
        rows = torch.cat(matrices) if len(matrices) > 1 else matrices[0]
        weights += (rows * scale[:, None]).to(dtype).split([convolution.out_channels for convolution, _ in group])
    ordered = [layer for group in groups for layer in group]
    biases = shifts.to(dtype).split([norm.num_features for _, norm in ordered])
    return {
        norm: (weight.unflatten(1, (*convolution.kernel_size, -1)).permute(0, 3, 1, 2), bias)
        for (convolution, norm), weight, bias in zip(ordered, weights, biases, strict=True)
    }


def _alike(layers: Sequence[Layer]) -> list[list[Layer]]:
    """Group layers whose rows are equally long, and that train or are frozen alike; on a CPU, every layer alone."""
    groups: dict[tuple[int, ...], list[Layer]] = defaultdict(list)
    for place, (convolution, norm) in enumerate(layers):
        weight = convolution.weight
        trains = weight.requires_grad or norm.weight.requires_grad
        kind = (weight[0].numel(), trains) if weight.device.type in _LAUNCH_BOUND_DEVICES else (place,)
        groups[kind].append((convolution, norm))
    return list(groups.values())


def _rows(convolution: nn.Conv2d) -> Tensor:
    """Return the weights as a matrix, output channels x inputs of each; a view if they are channels last."""
    return convolution.weight.permute(0, 2, 3, 1).flatten(1)


def _scales_and_shifts(norms: Sequence[nn.BatchNorm2d]) -> tuple[Tensor, Tensor]:
    """Return the scale and shift of BatchNorm layers with fixed statistics, for the channels of all layers."""
    mean, variance, weight, bias = (
        torch.cat([getattr(norm, name) for norm in norms]) for name in ("running_mean", "running_var", "weight", "bias")
    )
    scale = weight * (variance + norms[0].eps).rsqrt()
    return scale, bias - mean * scale


def _convolved_dtype(weights: Tensor) -> torch.dtype:
    """Return the dtype to which autocast would cast the weights of a convolution; their own if it is off."""
    device = weights.device.type
    is_on = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if is_on else weights.dtype


def convolve_and_normalise(convolution: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Convolve, then normalize: (N, C, H, W) -> (N, D, H', W'); fused if the statistics are fixed."""
    if norm.training:
        return norm(convolution(x))
    weight, bias = _FOLDED[norm] if norm in _FOLDED else fold([(convolution, norm)])[norm]
    stride, padding, dilation = convolution.stride, convolution.padding, convolution.dilation
    return F.conv2d(x, weight, bias, stride, padding, dilation, convolution.groups)


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
        with folded(self._fixed(self.reads_prefix)):
            return super().features(x)

    def _fixed(self, reads_prefix: bool) -> list[Layer]:
        """Return the convolutions before BatchNorm layers with fixed statistics, with these; without the prefix."""
        modules = list(self.network.modules())
        convolutions = [module for module in modules if isinstance(module, nn.Conv2d)]
        norms = [module for module in modules if isinstance(module, nn.BatchNorm2d)]
        frozen = set(map(self.get_submodule, self.frozen_layers)) if reads_prefix else set()
        layers = zip(convolutions, norms, strict=True)
        return [layer for layer in layers if not layer[1].training and layer[1] not in frozen]

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
