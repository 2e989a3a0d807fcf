"""Content of a dataset's folder, even if it cannot be trained on: images by class, missing and stray files."""

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
        images: by environment and class, in training order; an environment without a folder is empty, and a class
            without images has no entry.
        missing: environments without a folder.
        unread: files that look like images but are not read, due to format or location.
        strays: other files and folders that are not read; the content of such folders is not listed.
        nested: error message if class folders lie one level too deep, else ''.

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
        """Names of environments."""
        return list(self.images)

    @property
    def classes(self) -> list[str]:
        """Sorted union of the classes of all environments."""
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
        """Return a path relative to the folder of the dataset."""
        return str(path.relative_to(self.folder))

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of images by environment and class, including zeros."""
        return {
            environment: {kind: len(classes.get(kind, [])) for kind in self.classes}
            for environment, classes in self.images.items()
        }


def read_tree(name: str, data_dir: Path | None) -> Tree:
    """Read the folder of a catalog dataset, or of a custom dataset as environment/class/image.

    Raises InputError if the dataset has no folder.
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
                f"{name} is not stored as environment/class/image, so it cannot be verified; use data info for counts"
            )
        return dataset_folder(DATASETS[name], data_dir, DATASETS[name].names)
    folder = find_own(name, data_dir)
    if folder.is_file():
        raise InputError(f"{folder} is a manifest, but only folders can be verified; use data info for counts")
    return folder


def _not_read(folder: Path, found: Mapping[Path, ClassFolders]) -> list[Path]:
    """Find unread paths beside environments, beside classes, and among the images of a class."""
    paths = [path for path in folder.iterdir() if path not in found]
    for environment, classes in found.items():
        paths += [path for path in environment.iterdir() if path.name not in classes.images]
        for kind in classes.images:
            for place, names in walk(environment / kind):
                litter = (path.name for path in Path(place).iterdir() if is_junk(path.name) and path.is_dir())
                paths += [Path(place, name) for name in (*names, *litter) if not is_image(name)]
    return sorted(paths)
