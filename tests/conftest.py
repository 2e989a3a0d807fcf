"""Isolation of tests (one thread, a cache each), and a fixture that writes a small PACS."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from dg_batchformer.catalog.datasets import dataset_facts


@pytest.fixture(autouse=True)
def _alone(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def image_folder(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a small PACS: names of environments and classes, images per class."""

    def write(n: int = 5, classes: tuple[str, ...] = ("dog", "house"), size: tuple[int, int] = (40, 30)) -> Path:
        generator = torch.Generator().manual_seed(0)
        for environment in dataset_facts("PACS").names:
            for kind in classes:
                folder = tmp_path / "data" / "PACS" / environment / kind
                folder.mkdir(parents=True)
                for index in range(n):
                    pixels = torch.randint(0, 256, (*size[::-1], 3), generator=generator, dtype=torch.uint8)
                    Image.fromarray(pixels.numpy()).save(folder / f"{index}.png")
        return tmp_path / "data"

    return write
