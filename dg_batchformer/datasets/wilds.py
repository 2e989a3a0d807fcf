"""WILDS — Koh et al., 2021: Camelyon17 by hospital and FMoW by region, all official splits pooled, as in DomainBed.

They need the ``wilds`` package: ``pip install "dg_batchformer[wilds]"``. As in DomainBed, images are first resized to a
square, and random crops are cut from that, unlike those of image folders.
"""

import hashlib
import importlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from dg_batchformer.datasets.base import Dataset, Environment, Identity, Loaded
from dg_batchformer.errors import InputError


class _Environment(Environment):
    """The images of a hospital or region, resized to ``side`` x ``side`` pixels.

    ``indices[index]`` is the position of image ``index`` in the WILDS dataset.
    """

    def __init__(self, name: str, wilds_dataset: Any, indices: Sequence[int], labels: Sequence[int], side: int) -> None:
        super().__init__(name, labels)
        self.wilds_dataset, self.indices, self.side = wilds_dataset, indices, side

    def load(self, indices: Sequence[int]) -> Loaded:
        squared = (self.side, self.side)
        return Loaded([self._image(index).resize(squared, Image.Resampling.BILINEAR) for index in indices], [])

    def contents(self) -> Iterable[tuple[int, str]]:
        for index, label in enumerate(self.labels):
            yield label, hashlib.sha256(self._image(index).tobytes()).hexdigest()

    def _image(self, index: int) -> Image.Image:
        return self.wilds_dataset.get_input(self.indices[index])


class _WILDS(Dataset):
    """A WILDS dataset; its environments are the values of a metadata field, ascending.

    Attributes:
        module, wilds_class: location in the wilds package. field: the metadata field.

    """

    module: ClassVar[str]
    wilds_class: ClassVar[str]
    field: ClassVar[str]

    def __init__(self, root: Path | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        super().__init__(root, test_envs, hparams)
        self.input_shape = (3, hparams["image_size"], hparams["image_size"])
        self.wilds_dataset = self._open(root)
        self.classes = [str(label) for label in range(self.wilds_dataset.n_classes)]
        values = self.wilds_dataset.metadata_array[:, self.wilds_dataset.metadata_fields.index(self.field)]
        self.environments = []
        for name, value in zip(self.facts.names, sorted(set(values.tolist())), strict=True):
            indices = (values == value).nonzero().flatten()
            labels = self.wilds_dataset.y_array[indices].tolist()
            side = hparams["image_size"]
            self.environments.append(_Environment(name, self.wilds_dataset, indices.tolist(), labels, side))

    def identity(self) -> Identity:
        """Return a digest of the WILDS version and labels, as reading all images would take hours.

        Earlier releases of this package, which did not resize images to a square first, have another identity.
        """
        version = f"{self.wilds_dataset.dataset_name} {self.wilds_dataset.version}, squared"
        labels = [(environment.name, list(environment.labels)) for environment in self.environments]
        digest = hashlib.sha256(f"{version}\n{labels}".encode()).hexdigest()
        return Identity(digest, digest)

    def _open(self, root: Path | None) -> Any:
        name, folder = self.facts.name, self.facts.folder
        try:
            wilds_class = getattr(importlib.import_module(f"wilds.datasets.{self.module}"), self.wilds_class)
        except ImportError as error:
            raise InputError(f'{name} needs the wilds package ({error}): pip install "dg_batchformer[wilds]"') from None
        if root is None or not (root / folder).is_dir():
            raise InputError(
                f"{name} needs --data_dir: a folder with {folder} in it; get it with: python -c 'from wilds import "
                f'get_dataset; get_dataset("{folder.split("_")[0]}", root_dir="{root or "DIR"}", download=True)\''
            )
        return wilds_class(root_dir=str(root))


class WILDSCamelyon(_WILDS):
    """Tumor detection in lymph node tissue of five hospitals."""

    module, wilds_class, field = "camelyon17_dataset", "Camelyon17Dataset", "hospital"


class WILDSFMoW(_WILDS):
    """62 kinds of land use in satellite images of six regions."""

    module, wilds_class, field = "fmow_dataset", "FMoWDataset", "region"
