"""Minimal data of every dataset that is read from disk, and of custom datasets."""

import struct
import sys
from itertools import product
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from dg_batchformer.catalog.datasets import DATASETS

_PLACES = ("beach", "desert", "dirt", "jungle", "mountain", "snow")
_BREEDS = ("bulldog", "corgi", "dachshund", "labrador")


def write_images(folder: Path, n: int = 5, size: int = 16) -> None:
    """Write images that differ between folders."""
    folder.mkdir(parents=True)
    rng = np.random.RandomState(sum(str(folder).encode()))
    for index in range(n):
        Image.fromarray(rng.randint(0, 256, (size, size, 3)).astype(np.uint8)).save(folder / f"{index}.png")


def write_own(root: Path, domains: tuple[str, ...] = ("day", "night", "rain"), n: int = 5) -> Path:
    """Write a dataset Mine, with the classes cat and dog in every domain."""
    for domain, kind in product(domains, ("cat", "dog")):
        write_images(root / "Mine" / domain / kind, n)
    return root


def write_manifest(root: Path, *lines: str, header: str = "path,label,domain", name: str = "Listed.csv") -> Path:
    """Write a manifest with the given lines."""
    root.mkdir(exist_ok=True)
    (root / name).write_text("\n".join([header, *lines]) + "\n")
    return root / name


def write_mnist(root: Path, train: int = 60, test: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Write IDX files as torchvision lays them out; return all images and digits."""
    raw, rng = root / "MNIST" / "raw", np.random.RandomState(0)
    raw.mkdir(parents=True)
    images = rng.randint(0, 256, (train + test, 28, 28)).astype(np.uint8)
    digits = rng.randint(0, 10, train + test).astype(np.uint8)
    for part, rows in (("train", slice(0, train)), ("t10k", slice(train, None))):
        for name, values in ((f"{part}-images-idx3-ubyte", images[rows]), (f"{part}-labels-idx1-ubyte", digits[rows])):
            header = bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape)
            (raw / name).write_bytes(header + values.tobytes())
    return images, digits


def fake_wilds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the wilds package: 24 images with cyclic metadata."""
    for module, name, field, count in (
        ("camelyon17_dataset", "Camelyon17Dataset", "hospital", 5),
        ("fmow_dataset", "FMoWDataset", "region", 6),
    ):
        values = torch.arange(24) % count
        made = SimpleNamespace(
            dataset_name=name,
            version="1.0",
            n_classes=2,
            metadata_fields=["other", field],
            metadata_array=torch.stack([torch.zeros(24), values], dim=1).long(),
            y_array=torch.arange(24) // 12,
            get_input=lambda index: Image.new("RGB", (96, 96), (index, 0, 0)),
        )
        fake = ModuleType(f"wilds.datasets.{module}")
        setattr(fake, name, lambda root_dir, made=made: made)
        monkeypatch.setitem(sys.modules, fake.__name__, fake)


def write_dataset(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write minimal data with which a dataset of the catalog can be opened."""
    facts = DATASETS[name]
    if name.endswith("MNIST"):
        write_mnist(root)
    elif name.startswith("WILDS"):
        fake_wilds(monkeypatch)
        (root / facts.folder).mkdir(parents=True)
    elif name.startswith("Spawrious"):
        for group, place, breed in product("01", _PLACES, _BREEDS):
            write_images(root / facts.folder / group / place / breed, 2, 8)
    elif name == "DigitsDG":
        for environment, part, digit in product(facts.names, ("train", "val"), "07"):
            write_images(root / facts.folder / environment / part / digit, 3, 32)
    elif facts.folder:
        for environment, kind in product(facts.names, ("cat", "dog")):
            write_images(root / facts.folder / environment / kind, 3)
    return root
