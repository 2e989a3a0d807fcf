"""Datasets for tests: Toy, a learnable problem on vectors, and DomainBed's random tensors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dg_batchformer.datasets.base import Dataset, TensorEnvironment


class Toy(Dataset):
    """Vectors (8,): three stable features of the class, three spurious ones, two of noise.

    The spurious features agree with the class for 95, 90, 85 and 10 % of the samples of the four environments.
    """

    def __init__(self, root: Path | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        super().__init__(root, test_envs, hparams)
        self.classes = ["0", "1", "2"]
        agreements = (0.95, 0.9, 0.85, 0.1)
        self.environments = [
            self._draw(name, env, agreement)
            for env, (name, agreement) in enumerate(zip(self.facts.names, agreements, strict=True))
        ]

    @staticmethod
    def _draw(name: str, env: int, agreement: float, n: int = 120) -> TensorEnvironment:
        generator = torch.Generator().manual_seed(env)
        labels = torch.arange(n) % 3
        agrees = torch.rand(n, generator=generator) < agreement
        others = (labels + torch.randint(1, 3, (n,), generator=generator)) % 3
        spurious = torch.where(agrees, labels, others)
        stable = torch.eye(3)[labels] + 0.6 * torch.randn(n, 3, generator=generator)
        easy = 2 * torch.eye(3)[spurious] + 0.3 * torch.randn(n, 3, generator=generator)
        noise = torch.randn(n, 2, generator=generator)
        return TensorEnvironment(name, torch.cat([stable, easy, noise], dim=1), labels)


class _Debug(Dataset):
    """Three environments of 16 random tensors each, two classes."""

    def __init__(self, root: Path | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        super().__init__(root, test_envs, hparams)
        self.classes = ["0", "1"]
        generator = torch.Generator().manual_seed(0)
        self.environments = [
            TensorEnvironment(
                name,
                torch.randn(16, *self.input_shape, generator=generator),
                torch.randint(0, 2, (16,), generator=generator),
            )
            for name in self.facts.names
        ]


class Debug28(_Debug):
    """Random tensors (3, 28, 28)."""


class Debug224(_Debug):
    """Random tensors (3, 224, 224)."""
