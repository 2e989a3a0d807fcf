"""Dataset and Environment: what is loaded by index, with labels that mean the same everywhere."""

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
    """Images of some indices: Pillow images still to be transformed, or one tensor that needs nothing.

    ``notes`` holds sentences on what was repaired while loading.
    """

    images: list[Image] | Tensor
    notes: list[str]


class Identity(NamedTuple):
    """Sha256 of the content of a dataset: ``fingerprint`` whatever the order, ``arrangement`` in its order."""

    fingerprint: str
    arrangement: str

    @classmethod
    def of(cls, contents: Iterable[tuple[str, str, str]]) -> "Identity":
        """Return the identity of images given as (environment, class, sha256 of the content), in their order."""
        lines = ["\t".join(content) for content in contents]
        return cls(_sha256(sorted(lines)), _sha256(lines))


class Environment(ABC):
    """One domain: ``labels[index]`` is the class of image ``index``.

    Attributes:
        held_out: by index, whether the data itself says that an image validates; None where that is drawn.

    """

    held_out: Sequence[bool] | None = None

    def __init__(self, name: str, labels: Sequence[int]) -> None:
        self.name = name
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def image_name(self, index: int) -> str:
        """Return what people find an image by: its index, or its path where it has one."""
        return str(index)

    @abstractmethod
    def load(self, indices: Sequence[int]) -> Loaded:
        """Load images in the order of the indices."""

    @abstractmethod
    def contents(self) -> Iterable[tuple[int, str]]:
        """Yield (label, sha256 of the content) of every image."""


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
    """Environments with common classes. A subclass named as in ``catalog.datasets.DATASETS`` fills them in.

    Args:
        root: folder that holds the folders of datasets; None for what is built in.
        test_envs: held-out environments.
        hparams: of the run.
        facts: those of the catalog by default.

    Attributes:
        environments: in the order of ``env`` indices.
        classes: names by class index.
        input_shape: of one x.
        notes: sentences on what was found strange, for people.

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
        """Open the dataset of a run; overridden where more of the run matters than the constructor takes."""
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
        """Return the number of images by environment and class, classes without images included."""
        counted = {environment.name: Counter(environment.labels) for environment in self.environments}
        return {
            name: {kind: labels[label] for label, kind in enumerate(self.classes)} for name, labels in counted.items()
        }

    def identity(self) -> Identity:
        """Return what tells these images from others."""
        return Identity.of(
            (environment.name, self.classes[label], f"{digest}{part}")
            for environment in self.environments
            for (label, digest), part in zip(environment.contents(), _parts(environment), strict=True)
        )

    def fingerprint(self) -> str:
        """Return a sha256 of the content: equal for equal images, wherever they lie and in whatever order."""
        return self.identity().fingerprint


def _parts(environment: Environment) -> Iterable[str]:
    """Return what tells images apart that the data itself holds out from others."""
    return ["\tval" if held_out else "" for held_out in environment.held_out or [False] * len(environment)]


def _sha256(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()
