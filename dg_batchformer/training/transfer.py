"""Copy tensors from the host to a device: together, from pinned memory, without waiting for the device."""

from collections.abc import Sequence

import torch
from torch import Tensor

_ALIGNMENT = 8  # bytes, the size of the largest elements


class Parcel:
    """CPU tensors in one block of memory, so that one copy takes all of them to a device.

    For a GPU the block is pinned: the host does not wait until the GPU has finished earlier work. Build it in any
    thread, and unpack it in the one that uses the tensors.

    Args:
        tensors: on the CPU.
        device: their destination.

    """

    def __init__(self, tensors: Sequence[Tensor], device: torch.device) -> None:
        self.device = device
        self.contents = [(tensor.dtype, tensor.shape, tensor.nbytes) for tensor in tensors]
        self.extents = [-(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT for tensor in tensors]
        self.block = torch.empty(sum(self.extents), dtype=torch.uint8, pin_memory=device.type == "cuda")
        for part, tensor in zip(self._parts(self.block), tensors, strict=True):
            part.copy_(tensor)

    def unpack(self) -> list[Tensor]:
        """Return the tensors on the device."""
        return self._parts(self.block.to(self.device, non_blocking=True))

    def _parts(self, block: Tensor) -> list[Tensor]:
        parts = zip(block.split(self.extents), self.contents, strict=True)
        return [part[:size].view(dtype).view(shape) for part, (dtype, shape, size) in parts]


def transfer(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Return CPU tensors on a device; nothing is copied if that is the CPU."""
    return list(tensors) if device.type == "cpu" else Parcel(tensors, device).unpack()
