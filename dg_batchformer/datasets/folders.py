"""Image folders: domain/class/image, with DomainBed's environments."""

import hashlib
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from dg_batchformer.catalog.class_folders import (
    ClassFolders,
    deep_classes,
    folders_in,
    one_class_per_name,
    one_level_too_many,
    read_class_folders,
    say_beside,
    say_unread,
)
from dg_batchformer.catalog.datasets import DatasetFacts
from dg_batchformer.datasets.base import Dataset, Environment, Identity, Loaded
from dg_batchformer.datasets.decoding import decode, truncated
from dg_batchformer.errors import InputError
from dg_batchformer.runtime.parallel import in_every_core
from dg_batchformer.storage.folders import cache_dir, write_text
from dg_batchformer.storage.safe_read import IMAGE, NOTE, read_bytes, read_text

FilesByClass = dict[str, dict[str, list[Path]]]  # by environment, then by class


class FolderEnvironment(Environment):
    """Images in class folders, sorted by class name and then by path, as in torchvision."""

    def __init__(self, name: str, files: Sequence[Path], labels: Sequence[int]) -> None:
        super().__init__(name, labels)
        self.files = files

    def image_name(self, index: int) -> str:
        return os.fsencode(self.files[index]).decode(errors="backslashreplace")

    def load(self, indices: Sequence[int]) -> Loaded:
        images, notes = [], []
        for index in indices:
            image, whole = decode(self.files[index])
            images.append(image)
            if not whole:
                notes.append(truncated(self.files[index]))
        return Loaded(images, notes)

    def contents(self) -> Iterable[tuple[int, str]]:
        return zip(self.labels, in_every_core(_file_digest, self.files), strict=True)


class ImageFolders(Dataset):
    """Base class of image-folder datasets.

    Classes are the union over environments, so a class that an environment lacks does not shift labels. Folders beside
    the environments and unsupported files are ignored, with an entry in ``notes``. A subclass with another layout
    overrides ``find``, and reads its class folders with ``read_classes``.
    """

    registered = False
    environments: list[FolderEnvironment]  # type: ignore[assignment]  # read only

    def __init__(
        self,
        root: Path | None,
        test_envs: Sequence[int],
        hparams: dict[str, Any],
        *,
        facts: DatasetFacts | None = None,
    ) -> None:
        super().__init__(root, test_envs, hparams, facts=facts)
        size = hparams.get("image_size", self.facts.shape[-1])
        self.input_shape = (3, size, size)
        self._read: dict[Path, ClassFolders] = {}
        files = one_class_per_name(self.find(root))
        if nested := one_level_too_many(self._read):
            raise InputError(f"{nested}, or {self.way_out()}")
        self.classes = sorted({name for classes in files.values() for name in classes})
        if len(self.classes) == 1:
            raise InputError(f"{self.facts.name} has one class, {self.classes[0]}, but at least 2 are needed")
        self.environments = [self._environment(name, files[name]) for name in self.facts.names]
        if len(self.classes) != (self.facts.num_classes or len(self.classes)):
            self.notes.append(
                f"{self.facts.name} has {len(self.classes)} classes here instead of {self.facts.num_classes}: "
                f"{', '.join(self.classes)}"
            )
        self.notes += self._left_out()

    def way_out(self) -> str:
        """Return advice for folders with another layout."""
        return f"convert them with data prepare {self.facts.name} --from FOLDER"

    def find(self, root: Path | None) -> FilesByClass:
        """Return the files of every environment by class; raise InputError if an environment is missing."""
        folder = self.folder(root, self.facts.names)
        called = {name: name for name in self.facts.names}
        return self.read_environments(folder, f"environments of {self.facts.name}", called)

    def read_environments(self, folder: Path, expected: str, called: Mapping[str, str]) -> FilesByClass:
        """Return the files of the environments in a folder; other folders in it get a note.

        Args:
            folder: of the dataset.
            expected: description of the expected folders, for the note.
            called: folder names by environment.

        """
        strays = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name not in called.values())
        if strays:
            self.notes.append(f"ignored in {folder}, not {expected}: {', '.join(strays)}")
        return {name: self.read_classes(folder / called[name]) for name in self.facts.names}

    def read_classes(self, folder: Path) -> dict[str, list[Path]]:
        """Return the images in the class folders of a folder, by class; skipped files are recorded for ``notes``."""
        found = self._read[folder] = read_class_folders(folder)
        return found.images

    def _left_out(self) -> list[str]:
        """Return notes on image-like files and class-like folders that are not read."""
        unread = [file for found in self._read.values() for file in found.unread]
        beside = [file for found in self._read.values() for file in found.beside]
        no_classes = sorted({name for found in self._read.values() for name in found.empty} - {*self.classes})
        notes = [say_unread(unread)] if unread else []
        notes += [say_beside(beside)] if beside else []
        if deep := sorted(deep_classes(self._read)):
            notes.append(f"images in subfolders of {', '.join(deep)} belong to that class")
        if no_classes:
            notes.append(f"{', '.join(no_classes)}: not a class, as no image in these folders is read")
        return notes

    def folder(self, root: Path | None, names: Sequence[str]) -> Path:
        """Return the folder of the dataset; raise InputError if it, or one of ``names`` in it, is missing."""
        folder = dataset_folder(self.facts, root, names)
        missing = [name for name in names if not (folder / name).is_dir()]
        if missing:
            there = sorted(path.name for path in folder.iterdir() if path.is_dir())
            within = next((folder / name for name in there if _holds(folder / name, names)), None)
            found = f"it holds {', '.join(there) or 'no folder'}"
            if within:
                found = f"{within} holds them: mv {shlex.quote(str(within))}/* {shlex.quote(str(folder))}/"
            elif len(missing) == len(names):
                found += "; rename it to use it as a custom dataset"
            raise InputError(f"{folder} lacks the environments {', '.join(missing)}; {found}")
        return folder

    def _environment(self, name: str, by_class: dict[str, list[Path]]) -> FolderEnvironment:
        missing = [kind for kind in self.classes if kind not in by_class]
        if missing:
            self.notes.append(f"{self.facts.name}/{name} has no images of: {', '.join(missing)}")
        if not by_class:
            left_out = "".join(f"; {sentence}" for sentence in self._left_out())
            raise InputError(f"{self.facts.name}/{name} has no images in class folders (domain/class/image){left_out}")
        labelled = [(file, label) for label, kind in enumerate(self.classes) for file in by_class.get(kind, [])]
        return FolderEnvironment(name, [file for file, _ in labelled], [label for _, label in labelled])

    @property
    def files(self) -> list[Path]:
        """All image files, ordered by environment."""
        return [file for environment in self.environments for file in environment.files]

    def _listing(self) -> str:
        """Return a digest of the position and the file status of every image, to detect changes."""
        listing = hashlib.sha256()
        for environment in self.environments:
            labels, parts = environment.labels, environment.parts or ["train"] * len(environment)
            for file, label, part in zip(environment.files, labels, parts, strict=True):
                where = f"{environment.name}\t{self.classes[label]}\t{part}\t{file.absolute()}"
                listing.update(os.fsencode(f"{where}\t{_stamp(file)}\n"))
        return listing.hexdigest()

    @cached_property
    def _listed(self) -> str:
        return self._listing()

    @cached_property
    def _identity(self) -> Identity:
        memo = cache_dir() / "identities" / self._listed
        identity = _recall(memo)
        if identity is None:
            identity = super().identity()
            _remember(memo, identity)
        return identity

    def refuse_changed(self) -> None:
        """Raise InputError if a file changed since the dataset was opened."""
        if self._listing() != self._listed:
            raise InputError(f"images of {self.facts.name} changed while they were read; run the same command again")

    def identity(self) -> Identity:
        """Return the identity of the content; cached until a file changes, outside the data folder."""
        return self._identity


def dataset_folder(facts: DatasetFacts, root: Path | None, names: Sequence[str]) -> Path:
    """Return the folder of an image-folder dataset in ``--data_dir``; raise InputError if it does not exist.

    Args:
        facts: of the dataset.
        root: ``--data_dir``.
        names: expected subfolders, to find a misplaced dataset.

    """
    if root is None:
        raise InputError(f"{facts.name} needs --data_dir: the folder that holds {facts.folder}/{names[0]}/ ...")
    folder = root / facts.folder
    if not folder.is_dir():
        raise InputError(f"--data_dir {root} has no folder {facts.folder}; {_way_out(facts, root, names)}")
    return folder


def _way_out(facts: DatasetFacts, root: Path, names: Sequence[str]) -> str:
    """Return advice on how to move or link a misplaced dataset to its expected folder."""
    if _holds(root, names):
        parent = Path(os.path.relpath(root.absolute().parent)) if root.name in ("", "..") else root.parent
        give = f"give its parent: --data_dir {shlex.quote(str(parent))}"
        if _holds(parent / facts.folder, names):
            return give
        return f"it is {facts.name} under another name: {_link(root, parent / facts.folder)}; then {give}"
    for inner in folders_in(root) if root.is_dir() else []:
        if _holds(inner, names):
            return f"{inner} holds its environments: {_link(inner, root / facts.folder)}"
    if (root / facts.name).is_dir():
        return f"rename {root / facts.name} to {facts.folder}"
    return f"{facts.name} is expected there"


def _holds(folder: Path, names: Sequence[str]) -> bool:
    return all((folder / name).is_dir() for name in names)


def _link(folder: Path, link: Path) -> str:
    """Return the shell command that links a folder to another name."""
    return shlex.join(["ln", "-s", str(folder.absolute()), str(link)])


def _stamp(file: Path) -> str:
    """Return file attributes that change if a file is replaced or rewritten, even with equal size and mtime."""
    try:
        status = file.stat()
        return f"{status.st_size}\t{status.st_mtime_ns}\t{status.st_ctime_ns}\t{status.st_ino}"
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); replace it or take it out") from None


def _file_digest(file: Path) -> str:
    try:
        return hashlib.sha256(read_bytes(file, IMAGE)).hexdigest()
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); replace it or take it out") from None


def _recall(memo: Path) -> Identity | None:
    """Read a cached identity; None if there is none, or it is damaged."""
    try:
        fingerprint, arrangement, checksum = read_text(memo, NOTE).split()
    except (OSError, ValueError):
        return None
    return Identity(fingerprint, arrangement) if checksum == _checksum((fingerprint, arrangement)) else None


def _remember(memo: Path, identity: Identity) -> None:
    try:
        memo.parent.mkdir(parents=True, exist_ok=True)
        write_text(memo, "\n".join([*identity, _checksum(identity)]))
    except OSError:
        pass  # a missing cache entry costs only time


def _checksum(identity: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(identity).encode()).hexdigest()


class VLCS(ImageFolders):
    """Photographs of four benchmarks, 5 classes (Fang et al., 2013)."""


class PACS(ImageFolders):
    """Photo, art painting, cartoon, sketch, 7 classes (Li et al., 2017)."""


class OfficeHome(ImageFolders):
    """Art, clipart, product, real world, 65 classes (Venkateswara et al., 2017)."""


class TerraIncognita(ImageFolders):
    """Camera traps at four locations, 10 classes (Beery et al., 2018)."""


class DomainNet(ImageFolders):
    """Six styles, 345 classes (Peng et al., 2019)."""


class SVIRO(ImageFolders):
    """Rear seats of ten cars (Dias Da Cruz et al., 2020)."""


class NICOpp(ImageFolders):
    """NICO++ in its common contexts: autumn, dim, grass, outdoor, rock, water; 60 classes (Zhang et al., 2023)."""


class Office31(ImageFolders):
    """Amazon, DSLR and webcam pictures of office objects, 31 classes (Saenko et al., 2010)."""


class OfficeCaltech10(ImageFolders):
    """Amazon, Caltech-256, DSLR and webcam pictures of office objects, 10 classes (Gong et al., 2012)."""
