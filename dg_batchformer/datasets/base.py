"""Dataset and Environment: base classes of images loaded by index, with class indices shared by all environments."""

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from PIL.Image import Image
from torch import Tensor

from dg_batchformer.catalog.datasets import DatasetFacts, dataset_facts
from dg_batchformer.spec.run import RunSpec


class Loaded(NamedTuple):
    """A batch of images: Pillow images to be transformed, or one tensor that is ready.

    ``notes`` lists what was repaired while loading.
    """

    images: list[Image] | Tensor
    notes: list[str]


class Identity(NamedTuple):
    """SHA-256 digests of a dataset's content: ``fingerprint`` ignores the order of images, ``arrangement`` does not."""

    fingerprint: str
    arrangement: str

    @classmethod
    def of(cls, contents: Iterable[tuple[str, str, str]]) -> "Identity":
        """Compute the identity of images given as (environment, class, SHA-256 of the content), in order."""
        lines = ["\t".join(content) for content in contents]
        return cls(_sha256(sorted(lines)), _sha256(lines))


class Environment(ABC):
    """One domain: ``labels[index]`` is the class of image ``index``.

    Attributes:
        parts: ``train``, ``val`` or ``test`` by index if the dataset defines its splits; None if they are random.

    """

    parts: Sequence[str] | None = None

    def __init__(self, name: str, labels: Sequence[int]) -> None:
        self.name = name
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def image_name(self, index: int) -> str:
        """Return the path of an image, or its index if it has no path."""
        return str(index)

    @abstractmethod
    def load(self, indices: Sequence[int]) -> Loaded:
        """Load images in the order of the indices."""

    @abstractmethod
    def contents(self) -> Iterable[tuple[int, str]]:
        """Yield (label, SHA-256 of the content) of every image."""


class TensorEnvironment(Environment):
    """An environment in memory.

    Args:
        images: (n, ...); uint8 images or float inputs.
        labels: (n,) class indices.

    """

    def __init__(self, name: str, images: Tensor, labels: Tensor) -> None:
        super().__init__(name, labels.tolist())
        self.images = images

    def load(self, indices: Sequence[int]) -> Loaded:
        return Loaded(self.images[list(indices)], [])

    def contents(self) -> Iterable[tuple[int, str]]:
        for image, label in zip(self.images, self.labels, strict=True):
            yield label, hashlib.sha256(image.numpy().tobytes()).hexdigest()


class Dataset:
    """Environments with common classes; each subclass is named as in ``catalog.datasets.DATASETS``.

    Args:
        root: folder with the datasets' folders; None for built-in data.
        test_envs: indices of the test environments.
        hparams: of the run.
        facts: default to those in the catalog.

    Attributes:
        environments: in the order of ``env`` indices.
        classes: class names by class index.
        input_shape: shape of one input, without the batch dimension.
        notes: warnings to print for the user.

    """

    registered = False
    environments: list[Environment]
    classes: list[str]

    def __init__(
        self,
        root: Path | None,
        test_envs: Sequence[int],
        hparams: dict[str, Any],
        *,
        facts: DatasetFacts | None = None,
    ) -> None:
        self.facts: DatasetFacts = facts or dataset_facts(type(self).__name__)
        self.input_shape: tuple[int, ...] = self.facts.shape
        self.notes: list[str] = []

    @classmethod
    def of_run(cls, spec: RunSpec, root: Path | None, hparams: dict[str, Any]) -> Self:
        """Open the dataset of a run; overridden by datasets that depend on other fields of the spec."""
        return cls(root, spec.test_envs, hparams)

    def __len__(self) -> int:
        return len(self.environments)

    def __getitem__(self, env: int) -> Environment:
        return self.environments[env]

    def __iter__(self) -> Iterator[Environment]:
        return iter(self.environments)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of images by environment and class, including zeros."""
        counted = {environment.name: Counter(environment.labels) for environment in self.environments}
        return {
            name: {kind: labels[label] for label, kind in enumerate(self.classes)} for name, labels in counted.items()
        }

    def identity(self) -> Identity:
        """Return the identity of the content."""
        return Identity.of(
            (environment.name, self.classes[label], f"{digest}{part}")
            for environment in self.environments
            for (label, digest), part in zip(environment.contents(), _parts(environment), strict=True)
        )

    def fingerprint(self) -> str:
        """Return a SHA-256 of the content, which depends neither on paths nor on the order of images."""
        return self.identity().fingerprint


def _parts(environment: Environment) -> Iterable[str]:
    """Return a suffix per image for the digest, which marks validation and test images."""
    return ["" if part == "train" else f"\t{part}" for part in environment.parts or ["train"] * len(environment)]


def _sha256(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()
