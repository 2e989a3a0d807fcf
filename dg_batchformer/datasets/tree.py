"""What lies in the folder of a dataset, also where it could not be trained on: images by class, missing and stray."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dg_batchformer.catalog import DATASETS
from dg_batchformer.datasets import get_dataset_class
from dg_batchformer.datasets.folders import ImageFolders, dataset_folder, images_by_class, is_image
from dg_batchformer.errors import InputError
from dg_batchformer.own_data import find_own, folders_in


@dataclass(frozen=True)
class Tree:
    """The folder of a dataset as found.

    Args:
        images: by environment and class, in the order that training reads them; an environment without a folder is
            empty, a class without images has no entry.
        missing: environments without a folder.
        strays: files and folders that no run reads; of a folder, not what is in it.

    """

    name: str
    folder: Path
    images: dict[str, dict[str, list[Path]]]
    missing: list[str]
    strays: list[Path]

    @property
    def environments(self) -> list[str]:
        """The names of environments."""
        return list(self.images)

    @property
    def classes(self) -> list[str]:
        """The union of the classes of all environments."""
        return sorted({kind for classes in self.images.values() for kind in classes})

    @cached_property
    def placed(self) -> list[tuple[str, str, Path]]:
        """Every image as (environment, class, file)."""
        return [
            (environment, kind, file)
            for environment, classes in self.images.items()
            for kind, files in classes.items()
            for file in files
        ]

    def name_of(self, path: Path) -> str:
        """Return a path as people read it: relative to the folder of the dataset."""
        return str(path.relative_to(self.folder))

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of images by environment and class, classes without images included."""
        return {
            environment: {kind: len(classes.get(kind, [])) for kind in self.classes}
            for environment, classes in self.images.items()
        }


def read_tree(name: str, data_dir: Path | None) -> Tree:
    """Find the images of a dataset of the catalog, or of your own: any folder of environment/class/image.

    Raises InputError where the dataset has no folder.
    """
    folder = _find(name, data_dir)
    environments = list(DATASETS[name].names) if name in DATASETS else [path.name for path in folders_in(folder)]
    images = {
        environment: images_by_class(folder / environment) if (folder / environment).is_dir() else {}
        for environment in environments
    }
    if name not in DATASETS:
        images = {environment: classes for environment, classes in images.items() if classes}
    missing = [environment for environment in images if not (folder / environment).is_dir()]
    return Tree(name, folder, images, missing, _strays(folder, images))


def _find(name: str, data_dir: Path | None) -> Path:
    if name in DATASETS:
        dataset_class = get_dataset_class(name)
        if not issubclass(dataset_class, ImageFolders) or dataset_class.find is not ImageFolders.find:
            raise InputError(
                f"{name} is not laid out as environment/class/image, which is looked at here; data info counts it"
            )
        return dataset_folder(DATASETS[name], data_dir, DATASETS[name].names)
    folder = find_own(name, data_dir)
    if folder.is_file():
        raise InputError(f"{folder} is a manifest, and folders are what is looked at here; data info counts it")
    return folder


def _strays(folder: Path, images: dict[str, dict[str, list[Path]]]) -> list[Path]:
    """Find what is beside environments, beside classes, and among the images of a class."""
    found = [path for path in folder.iterdir() if path.name not in images]
    for environment, classes in images.items():
        if (folder / environment).is_dir():
            found += [path for path in (folder / environment).iterdir() if path.name not in classes]
        for kind in classes:
            for place, _, names in os.walk(folder / environment / kind, followlinks=True):
                found += [Path(place, name) for name in names if not is_image(name)]
    return sorted(found)
