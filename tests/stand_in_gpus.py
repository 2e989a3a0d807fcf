"""A stand-in for torch.cuda with any number of GPUs, for machines without one."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

GIB = 2**30


class Gpus:
    """A fake ``torch.cuda``.

    Attributes:
        chosen: devices passed to ``set_device``.
        free, total: bytes of each card.

    """

    def __init__(self, patch: pytest.MonkeyPatch, count: int, free: int = 80 * GIB, total: int = 80 * GIB) -> None:
        self.chosen: list[torch.device] = []
        self.free, self.total = free, total
        stand_in: dict[str, Callable[..., Any]] = {
            "is_available": lambda: count > 0,
            "device_count": lambda: count,
            "set_device": self._choose,
            "synchronize": lambda device=None: None,
            "empty_cache": lambda: None,
            "mem_get_info": lambda device=None: (self.free, self.total),
            "memory_reserved": lambda device=None: 0,
            "max_memory_reserved": lambda device=None: 0,
            "get_device_capability": lambda device=None: (9, 0),
        }
        for name, function in stand_in.items():
            patch.setattr(torch.cuda, name, function)

    def _choose(self, device: torch.device) -> None:
        if device.index is None:
            raise ValueError(f"Expected a torch.device with a specified index, but got: {device}")  # as PyTorch does
        self.chosen.append(device)
