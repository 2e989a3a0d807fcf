"""What lies in the folder of a dataset, also where it could not be trained on: images by class, missing and stray."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dg_batchformer.catalog.class_folders import (
    ClassFolders,
    is_image,
    is_junk,
    one_class_per_name,
    one_level_too_many,
    read_class_folders,
    walk,
)
from dg_batchformer.catalog.custom import find_own, folder_environments
from dg_batchformer.catalog.datasets import DATASETS
from dg_batchformer.datasets import get_dataset_class
from dg_batchformer.datasets.folders import ImageFolders, dataset_folder
from dg_batchformer.errors import InputError


@dataclass(frozen=True)
class Tree:
    """The folder of a dataset as found.

    Args:
        images: by environment and class, in the order that training reads them; an environment without a folder is
            empty, a class without images has no entry.
        missing: environments without a folder.
        unread: files that could be meant as images, and that no run reads: by their format, or by where they lie.
        strays: other files and folders that no run reads; of a folder, not what is in it.
        nested: a sentence where the class folders lie a level too deep, and no run starts; '' where they do not.

    """

    name: str
    folder: Path
    images: dict[str, dict[str, list[Path]]]
    missing: list[str]
    unread: list[Path]
    strays: list[Path]
    nested: str

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
    environments = list(DATASETS[name].names) if name in DATASETS else folder_environments(folder)
    missing = [environment for environment in environments if not (folder / environment).is_dir()]
    found = {folder / name: read_class_folders(folder / name) for name in environments if name not in missing}
    images = {name: found[folder / name].images if name not in missing else {} for name in environments}
    unread = sorted(file for each in found.values() for file in (*each.unread, *each.beside))
    strays = [path for path in _not_read(folder, found) if path not in {*unread}]
    return Tree(name, folder, one_class_per_name(images), missing, unread, strays, one_level_too_many(found))


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


def _not_read(folder: Path, found: Mapping[Path, ClassFolders]) -> list[Path]:
    """Find what is beside environments, beside classes, and among the images of a class."""
    paths = [path for path in folder.iterdir() if path not in found]
    for environment, classes in found.items():
        paths += [path for path in environment.iterdir() if path.name not in classes.images]
        for kind in classes.images:
            for place, names in walk(environment / kind):
                litter = (path.name for path in Path(place).iterdir() if is_junk(path.name) and path.is_dir())
                paths += [Path(place, name) for name in (*names, *litter) if not is_image(name)]
    return sorted(paths)
