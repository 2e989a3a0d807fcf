"""Image folders: domain/class/image, with DomainBed's environments and labels that never shift."""

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
    """Images in class folders, ordered by class name and then by path, as torchvision orders them."""

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
    """The common class of image-folder datasets.

    Classes are the union over environments, so that one without images shifts no label. Other folders beside the
    environments are ignored, and files that are not read are left out: ``notes`` report all of it. A subclass whose
    files lie otherwise overrides ``find``, and reads every folder of class folders by ``read_classes``.
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
            raise InputError(f"{self.facts.name} has one class, {self.classes[0]}, and at least 2 are needed")
        self.environments = [self._environment(name, files[name]) for name in self.facts.names]
        if len(self.classes) != (self.facts.num_classes or len(self.classes)):
            self.notes.append(
                f"{self.facts.name} has {len(self.classes)} classes here, {self.facts.num_classes} are known: "
                f"{', '.join(self.classes)}"
            )
        self.notes += self._left_out()

    def way_out(self) -> str:
        """Return what else to do where folders cannot be read as they lie."""
        return f"let data prepare {self.facts.name} --from FOLDER lay them out"

    def find(self, root: Path | None) -> FilesByClass:
        """Return the files of every environment by class; raise InputError where they are not all there."""
        folder = self.folder(root, self.facts.names)
        called = {name: name for name in self.facts.names}
        return self.read_environments(folder, f"environments of {self.facts.name}", called)

    def read_environments(self, folder: Path, expected: str, called: Mapping[str, str]) -> FilesByClass:
        """Return the files of the environments in a folder; other folders in it are noted as not what is expected.

        Args:
            called: the names of the folders of environments, by environment.

        """
        strays = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name not in called.values())
        if strays:
            self.notes.append(f"ignored in {folder}, no {expected}: {', '.join(strays)}")
        return {name: self.read_classes(folder / called[name]) for name in self.facts.names}

    def read_classes(self, folder: Path) -> dict[str, list[Path]]:
        """Return the images in the class folders of a folder, by class; keep in mind what is left out there."""
        found = self._read[folder] = read_class_folders(folder)
        return found.images

    def _left_out(self) -> list[str]:
        """Return sentences on what could be meant as images or classes, and is not read."""
        unread = [file for found in self._read.values() for file in found.unread]
        beside = [file for found in self._read.values() for file in found.beside]
        no_classes = sorted({name for found in self._read.values() for name in found.empty} - {*self.classes})
        notes = [say_unread(unread)] if unread else []
        notes += [say_beside(beside)] if beside else []
        if deep := sorted(deep_classes(self._read)):
            notes.append(f"images lie in folders below {', '.join(deep)}, and count as of that class")
        if no_classes:
            notes.append(f"{', '.join(no_classes)}: no class, since no image in folders of that name is read")
        return notes

    def folder(self, root: Path | None, names: Sequence[str]) -> Path:
        """Return the folder of the dataset; raise InputError where it, or a folder in it, is not there."""
        folder = dataset_folder(self.facts, root, names)
        missing = [name for name in names if not (folder / name).is_dir()]
        if missing:
            there = sorted(path.name for path in folder.iterdir() if path.is_dir())
            within = next((folder / name for name in there if _holds(folder / name, names)), None)
            found = f"it holds {', '.join(there) or 'no folder'}"
            if within:
                found = f"{within} holds them: mv {shlex.quote(str(within))}/* {shlex.quote(str(folder))}/"
            elif len(missing) == len(names):
                found += "; rename it to train on it as data of your own"
            raise InputError(f"{folder} lacks the environments {', '.join(missing)}; {found}")
        return folder

    def _environment(self, name: str, by_class: dict[str, list[Path]]) -> FolderEnvironment:
        missing = [kind for kind in self.classes if kind not in by_class]
        if missing:
            self.notes.append(f"{self.facts.name}/{name} has no image of: {', '.join(missing)}")
        if not by_class:
            left_out = "".join(f"; {sentence}" for sentence in self._left_out())
            raise InputError(f"{self.facts.name}/{name} holds no image in class folders (domain/class/image){left_out}")
        labelled = [(file, label) for label, kind in enumerate(self.classes) for file in by_class.get(kind, [])]
        return FolderEnvironment(name, [file for file, _ in labelled], [label for _, label in labelled])

    @property
    def files(self) -> list[Path]:
        """All images, one environment after another."""
        return [file for environment in self.environments for file in environment.files]

    def _listing(self) -> str:
        """Return a digest of where every image stands and of what changes when its file does."""
        listing = hashlib.sha256()
        for environment in self.environments:
            labels, held_out = environment.labels, environment.held_out or [False] * len(environment)
            for file, label, held in zip(environment.files, labels, held_out, strict=True):
                where = f"{environment.name}\t{self.classes[label]}\t{held}\t{file.absolute()}"
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
        """Raise InputError where a file is no longer the one that the identity is of."""
        if self._listing() != self._listed:
            raise InputError(f"images of {self.facts.name} changed while they were read; run the same command again")

    def identity(self) -> Identity:
        """As for every dataset; remembered outside the data folder as long as no file changes."""
        return self._identity


def dataset_folder(facts: DatasetFacts, root: Path | None, names: Sequence[str]) -> Path:
    """Return the folder of a dataset of image folders below ``--data_dir``; raise InputError where it is not there.

    Args:
        names: of the folders that are expected in it.

    """
    if root is None:
        raise InputError(f"{facts.name} needs --data_dir: the folder that holds {facts.folder}/{names[0]}/ ...")
    folder = root / facts.folder
    if not folder.is_dir():
        raise InputError(f"--data_dir {root} has no folder {facts.folder}; {_way_out(facts, root, names)}")
    return folder


def _way_out(facts: DatasetFacts, root: Path, names: Sequence[str]) -> str:
    """Say where the environments of a dataset are instead, and how they get to where they are expected."""
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
    """Return the command that gives a folder another name."""
    return shlex.join(["ln", "-s", str(folder.absolute()), str(link)])


def _stamp(file: Path) -> str:
    """Return what tells a file from one that takes its place, or that was written over it with its size and time."""
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
    """Read an identity back; None where none was kept, or it is damaged."""
    try:
        *identity, checksum = read_text(memo, NOTE).split()
    except (OSError, ValueError):
        return None
    return Identity(*identity) if checksum == _checksum(identity) and len(identity) == 2 else None


def _remember(memo: Path, identity: Identity) -> None:
    try:
        memo.parent.mkdir(parents=True, exist_ok=True)
        write_text(memo, "\n".join([*identity, _checksum(identity)]))
    except OSError:
        pass  # a memo that cannot be kept costs time, never a result


def _checksum(identity: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(identity).encode()).hexdigest()


class VLCS(ImageFolders):
    """Four benchmarks of photographs, 5 classes (Fang et al., 2013)."""


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
    """NICO++, its common contexts: autumn, dim, grass, outdoor, rock, water; 60 classes (Zhang et al., 2023)."""


class Office31(ImageFolders):
    """Amazon, DSLR and webcam pictures of office objects, 31 classes (Saenko et al., 2010)."""


class OfficeCaltech10(ImageFolders):
    """Amazon, Caltech-256, DSLR and webcam pictures of office objects, 10 classes (Gong et al., 2012)."""
