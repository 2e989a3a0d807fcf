"""ColoredMNIST (Arjovsky et al., 2019) and RotatedMNIST (Ghifary et al., 2015), built from MNIST as in DomainBed.

Random choices are seeded by the trial, where DomainBed uses ``--seed``: all runs of a trial see the same images, and
trial n has the images of DomainBed's ``--seed n``.
"""

import gzip
import hashlib
import zlib
from abc import abstractmethod
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dg_batchformer.datasets.base import Dataset, Identity, TensorEnvironment
from dg_batchformer.errors import InputError
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.storage.safe_read import Unreadable, open_regular, read_bytes

_PARTS = ("train", "t10k")
_UNSIGNED_BYTES = 8  # the code of IDX
_LARGEST = 2**26  # bytes of an unpacked file: 60,000 images of 28 x 28 take 47 million


class _MNIST(Dataset):
    """All 70,000 digits, shuffled and dealt to the environments in turn; uint8 images with one or two channels."""

    def __init__(
        self, root: Path | None, test_envs: Sequence[int], hparams: dict[str, Any], *, trial_seed: int = 0
    ) -> None:
        super().__init__(root, test_envs, hparams)
        images, digits = _read_mnist(self.facts.name, root)
        self._digest = hashlib.sha256(images.numpy().tobytes() + digits.numpy().tobytes()).hexdigest()
        self.classes = [str(label) for label in range(self.facts.num_classes or 0)]
        generator = torch.Generator().manual_seed(trial_seed)
        order = torch.randperm(len(images), generator=generator)
        count = len(self.facts.names)
        self.environments = [
            TensorEnvironment(
                name, *self._environment(images[order[env::count]], digits[order[env::count]], env, generator)
            )
            for env, name in enumerate(self.facts.names)
        ]

    @classmethod
    def of_run(cls, spec: RunSpec, root: Path | None, hparams: dict[str, Any]) -> Self:
        return cls(root, spec.test_envs, hparams, trial_seed=spec.trial_seed)

    def identity(self) -> Identity:
        """Return the identity of MNIST's files, which all trials share."""
        return Identity(self._digest, self._digest)

    @abstractmethod
    def _environment(
        self, images: Tensor, digits: Tensor, env: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Make the images (n, C, 28, 28) and labels (n,) of an environment from digits (n, 28, 28)."""


class ColoredMNIST(_MNIST):
    """Classify digits below five; 25 % of the labels are flipped, and colors agree with them in 90, 80 and 10 %."""

    def _environment(
        self, images: Tensor, digits: Tensor, env: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        labels = (digits < 5) ^ (torch.rand(len(digits), generator=generator) < 0.25)
        colours = labels ^ (torch.rand(len(digits), generator=generator) < (0.1, 0.2, 0.9)[env])
        channels = torch.stack([~colours, colours], dim=1)  # (n, 2): each digit is in one channel
        return images[:, None] * channels[:, :, None, None], labels.long()


class RotatedMNIST(_MNIST):
    """Digits rotated by 0, 15, 30, 45, 60 and 75 degrees."""

    def _environment(
        self, images: Tensor, digits: Tensor, env: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        angle = int(self.facts.names[env])
        turned = [
            np.asarray(Image.fromarray(image).rotate(angle, Image.Resampling.BILINEAR)) for image in images.numpy()
        ]
        return torch.from_numpy(np.stack(turned))[:, None], digits.long()


def _read_mnist(dataset: str, root: Path | None) -> tuple[Tensor, Tensor]:
    """Return images (n, 28, 28) and digits (n,) as uint8, the training set first."""
    if root is None:
        raise InputError(f"{dataset} needs --data_dir: the folder with MNIST/raw/ in it; see list datasets {dataset}")
    folder = root / "MNIST" / "raw"
    images = [read_idx(folder / f"{part}-images-idx3-ubyte", 3) for part in _PARTS]
    digits = [read_idx(folder / f"{part}-labels-idx1-ubyte", 1) for part in _PARTS]
    for part, x, y in zip(_PARTS, images, digits, strict=True):
        if len(x) != len(y) or x.shape[1:] != (28, 28) or (len(y) and y.max() > 9):
            raise InputError(f"{folder} is not MNIST: {part} has images {x.shape}, labels {y.shape}; download it again")
    return torch.from_numpy(np.concatenate(images)), torch.from_numpy(np.concatenate(digits))


def read_idx(file: Path, dimensions: int) -> np.ndarray:
    """Read an IDX file of bytes, plain or gzipped, as torchvision stores them."""
    zipped = file.with_name(f"{file.name}.gz")
    try:
        if file.is_file():
            content = read_bytes(file, _LARGEST)
        else:
            with open_regular(zipped, _LARGEST) as stream, gzip.open(stream) as plain:
                content = plain.read(_LARGEST)
    except FileNotFoundError:
        download = f'from torchvision.datasets import MNIST; MNIST("{file.parents[2]}", download=True)'
        raise InputError(
            f"MNIST is missing: there is neither {file} nor {zipped.name}; download it with: python -c '{download}'"
        ) from None
    except Unreadable:
        raise
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{zipped} cannot be read ({error}); download it again") from None
    header = 4 * (1 + dimensions)
    sizes = tuple(int(size) for size in np.frombuffer(content[4:header].ljust(header - 4, b"\0"), ">u4"))
    magic = bytes((0, 0, _UNSIGNED_BYTES, dimensions))
    if content[:4] != magic or len(content) != header + prod(sizes):
        raise InputError(f"{file} is not a complete IDX file of {dimensions} dimensions; download it again")
    return np.frombuffer(content, np.uint8, offset=header).reshape(sizes).copy()
