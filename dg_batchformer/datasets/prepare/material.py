"""Sort the downloaded or given files of a dataset by kind: archives, tables, annotations, folders."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from dg_batchformer.catalog.class_folders import is_junk
from dg_batchformer.catalog.datasets import DatasetFacts
from dg_batchformer.datasets.prepare.archives import is_archive
from dg_batchformer.datasets.prepare.layouts import find_environments
from dg_batchformer.datasets.prepare.sources import Source
from dg_batchformer.errors import InputError
from dg_batchformer.storage.safe_read import TABLE, read_text

_SUFFIXES = (
    ".zip",
    ".tar",
    ".gz",
    ".tgz",
    ".bz2",
    ".xz",
    ".parquet",
    ".json",
    "duplicates.txt",
)  # extensions to search for in folders


@dataclass
class Material:
    """The files to build a dataset from, by kind.

    Attributes:
        archives: zip and tar files.
        tables: parquet files.
        annotations: JSON files.
        duplicates: text files that list images to skip.
        folders: folders of images.

    """

    archives: list[Path] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    annotations: list[Path] = field(default_factory=list)
    duplicates: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)

    @property
    def left_out(self) -> frozenset[str]:
        """The images to skip, as environment/class/image."""
        lines = (
            line.strip() for path in self.duplicates for line in read_text(path, TABLE, errors="replace").splitlines()
        )
        return frozenset(line.removeprefix("./") for line in lines if line)


def sort_material(given: Iterable[Path], facts: DatasetFacts, source: Source) -> Material:
    """Sort given paths by kind; folders that lack environments are searched for archives and other files.

    Raises InputError for a path that does not exist or is of no supported kind.

    """
    material = Material()
    for path in given:
        if path.is_dir():
            material.folders.append(path)
            if len(find_environments(path, facts, source)) < len(facts.names):
                for file in sorted(path.rglob("*")):
                    hidden = any(map(is_junk, file.relative_to(path).parts))
                    if file.name.lower().endswith(_SUFFIXES) and not hidden and file.is_file():
                        _add(material, file, source)
        elif not path.exists():
            raise InputError(f"{path} does not exist; give an archive, or a folder of images or archives")
        elif not _add(material, path, source):
            raise InputError(
                f"{path} cannot be used for {facts.name}: give a zip or tar, a parquet file, or a folder of images or "
                "of these"
            )
    if material.tables and material.archives:
        raise InputError(
            f"{material.tables[0]} and {material.archives[0]} are two forms of {facts.name}; give one of them"
        )
    return material


def _add(material: Material, file: Path, source: Source) -> bool:
    """Add a file to its kind; return false if it has none."""
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        material.tables.append(file)
    elif suffix == ".json" and source.camera_traps:
        material.annotations.append(file)
    elif suffix == ".txt" and source.duplicates:
        material.duplicates.append(file)
    elif is_archive(file):
        material.archives.append(file)
    else:
        return False
    return True
