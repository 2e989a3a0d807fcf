"""ResNet-18 and ResNet-50 as DomainBed uses them: torchvision's, without the last layer, then dropout."""

import torch
import torchvision
from torch import Tensor, nn

from dg_batchformer.networks.batch_norm import FreezableBatchNorm


class ResNet(FreezableBatchNorm):
    """torchvision's ResNet, (N, C, H, W) -> (N, 512 or 2048).

    Args:
        name: ``resnet18`` or ``resnet50``.
        channels: of the input; pretrained weights of the first layer are repeated over channels.
        dropout: on the pooled features.

    """

    def __init__(self, name: str, channels: int, dropout: float) -> None:
        super().__init__()
        self.network = torchvision.models.get_model(name, weights=None)
        self.n_outputs: int = self.network.fc.in_features
        self.network.fc = nn.Identity()
        if channels != 3:
            self.network.conv1 = nn.Conv2d(channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.network.to(memory_format=torch.channels_last)  # what convolutions are fast in
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.network(x.contiguous(memory_format=torch.channels_last)))

    def load_pretrained(self, state: dict[str, Tensor]) -> None:
        """Take over a state dict in torchvision's layout; the last layer is left out."""
        state = {name: value for name, value in state.items() if not name.startswith("fc.")}
        channels = self.network.conv1.in_channels
        if channels != 3 and "conv1.weight" in state:
            state["conv1.weight"] = state["conv1.weight"][:, [channel % 3 for channel in range(channels)]]
        self.network.load_state_dict(state)
