"""Isolation of tests (one thread, a cache each, no plug-ins of others), and a fixture that writes a small PACS."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from PIL import Image

from dg_batchformer.catalog import datasets, installed, wrappers
from dg_batchformer.catalog.datasets import dataset_facts
from dg_batchformer.networks.backbones import BACKBONES
from dg_batchformer.plugins import load, session
from dg_batchformer.registry import ALGORITHMS, DATASETS, WRAPPERS
from dg_batchformer.spec import protocols
from dg_batchformer.sweep.launchers.base import LAUNCHERS

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _alone(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(1)  # for fixtures of whole modules, which come before this one


@pytest.fixture
def registrations(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start without plug-ins, and forget afterwards what the test registers."""
    for registry in (ALGORITHMS, WRAPPERS, DATASETS):
        monkeypatch.setattr(registry, "_classes", dict(registry._classes))
    for place, name in (
        (wrappers, "_added"), (datasets, "_added"), (load, "_loaded"), (session, "_registered"), (protocols, "_files")
    ):  # fmt: skip
        monkeypatch.setattr(place, name, type(getattr(place, name))())
    installed.entries.cache_clear()
    added_to = (datasets.DATASETS, BACKBONES, protocols.PROTOCOLS, LAUNCHERS)
    with ExitStack() as stack:
        for table in added_to:
            stack.enter_context(patch.dict(table))
        yield
    installed.entries.cache_clear()


@pytest.fixture
def plugin_folder(registrations: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in an empty folder from which plug-ins are imported; what they add is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    modules = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


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


@pytest.fixture
def forget_compiled() -> Iterator[None]:
    """Compile the augmentation of GPUs anew in a test, and after it."""
    from dg_batchformer.training.gpu_augment import fused

    fused.cache_clear()
    yield
    fused.cache_clear()
