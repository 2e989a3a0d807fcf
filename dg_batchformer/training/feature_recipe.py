"""Recipe of cached features: all that they depend on, which names their folder."""

import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import NamedTuple

from dg_batchformer.datasets import Dataset
from dg_batchformer.networks.base import FeaturizerModule
from dg_batchformer.networks.freezing import prefix_state
from dg_batchformer.plugins.session import source_of
from dg_batchformer.spec.forks import MAX_CODE
from dg_batchformer.storage.folders import cache_dir
from dg_batchformer.storage.safe_read import read_bytes

_FORMAT = 2  # raised whenever views, augmentation or our networks change
_SAME_EVERYWHERE = {"dg_batchformer", "torch", "torchvision"}  # packages whose code is not part of a recipe


class Recipe(NamedTuple):
    """All settings that the features depend on.

    Args:
        arrangement: digest of the images and their order.
        code: of other packages and of plug-ins that compute the features: versions, or digests of files.
        weights: digest of the frozen weights and statistics, and of the normalization of the input.
        frozen: the last frozen stage, or ``featurizer``.
        views: number of augmented views per image; 0 without augmentation.
        precision: of the computation, ``fp32`` or ``bf16``.

    """

    arrangement: str
    backbone: str
    code: tuple[str, ...]
    weights: str
    frozen: str
    image_size: int
    views: int
    precision: str

    @property
    def folder(self) -> Path:
        """Folder of the cached features."""
        digest = hashlib.sha256(json.dumps([_FORMAT, *self]).encode()).hexdigest()
        return cache_dir() / "features" / digest[:16]


def recipe_of(dataset: Dataset, featurizer: FeaturizerModule, backbone: str, views: int, precision: str) -> Recipe:
    """Return the recipe of a dataset's features under a featurizer with a frozen prefix."""
    digest = hashlib.sha256()
    for name, tensor in prefix_state(featurizer).items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return Recipe(
        dataset.identity().arrangement,
        backbone,
        tuple(sorted(set(_code(featurizer)))),
        digest.hexdigest(),
        featurizer.frozen,
        dataset.input_shape[-1],
        views,
        precision,
    )


def _code(featurizer: FeaturizerModule) -> Iterator[str]:
    """Yield the versions of packages, and digests of the files of plug-ins, whose modules are in a featurizer."""
    for kind in {type(module) for module in featurizer.modules()}:
        package = kind.__module__.partition(".")[0]
        if package in _SAME_EVERYWHERE:
            continue
        names = _distributions().get(package)
        yield f"{names[0]} {version(names[0])}" if names else f"{package} {_file_digest(kind)}"


@cache
def _distributions() -> Mapping[str, Sequence[str]]:
    """Return the installed distributions by package; this takes a while."""
    return packages_distributions()


def _file_digest(kind: type) -> str:
    """Return the digest of the file that defines a class; of its source if there is none, as in a notebook."""
    try:
        code = read_bytes(inspect.getfile(kind), MAX_CODE)
    except (OSError, TypeError):
        code = source_of(kind).encode()
    return hashlib.sha256(code).hexdigest()
