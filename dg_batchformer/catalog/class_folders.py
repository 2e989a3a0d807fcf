"""Class folders of a domain: which folders are classes, which files are images, and which files are skipped.

Shared by training, ``data info``, ``data verify``, ``data prepare`` and ``predict``.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dg_batchformer.catalog.image_formats import could_be_image, has_read_ending
from dg_batchformer.errors import InputError
from dg_batchformer.text.spelling import one_spelling

SPLITS = frozenset({"train", "val", "valid", "validation", "crossval", "test", "full", "all"})
WRAPPING = SPLITS | {"image", "images", "img", "imgs", "jpegimages", "photos", "pictures", "data"}
# Junk of file managers, network storage and recycle bins, besides hidden names and __MACOSX.
_LITTER = frozenset({"thumbs.db", "desktop.ini", "@eadir", "#recycle", "@recycle", "$recycle.bin", "lost+found"})
_NAMED = 5  # names to list in a message


class ClassFolders(NamedTuple):
    """Content of a domain's folder.

    Attributes:
        images: image files by class, in torchvision's order; a class without images has no entry.
        unread: files in class folders that look like images but have an unsupported format.
        beside: files beside the class folders that look like images.
        empty: names of class folders without a readable image.

    """

    images: dict[str, list[Path]]
    unread: list[Path]
    beside: list[Path]
    empty: list[str]


def read_class_folders(folder: Path) -> ClassFolders:
    """Find the images in and below the class folders of a domain; raise InputError if a folder cannot be read."""
    found = ClassFolders({}, [], [], [])
    for path in folders_in(folder):
        images, unread = images_below(path)
        found.unread.extend(unread)
        if images:
            found.images[path.name] = images
        else:
            found.empty.append(path.name)
    files = (path for path in sorted(folder.iterdir()) if not path.is_dir() and not is_junk(path.name))
    found.beside.extend(path for path in files if could_be_image(path))
    return found


def one_class_per_name(domains: Mapping[str, Mapping[str, list[Path]]]) -> dict[str, dict[str, list[Path]]]:
    """Return the images by domain and class; class folders whose names differ only in Unicode form are merged."""
    spellings = one_spelling(name for classes in domains.values() for name in classes)
    merged: dict[str, dict[str, list[Path]]] = {}
    for domain, classes in domains.items():
        images = merged[domain] = {}
        for name, files in classes.items():
            images[spellings[name]] = [*images.get(spellings[name], []), *files]
    return merged


def images_below(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return all images below a folder, sorted by path, and unread files that look like images."""
    files = [Path(place, name) for place, names in sorted(walk(folder)) for name in sorted(names)]
    images = [file for file in files if is_image(file.name)]
    unread = [file for file in files if not is_image(file.name) and not is_junk(file.name) and could_be_image(file)]
    return images, unread


def walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield a folder and all folders below it with the names of their files; follow links, skip junk folders.

    Raises InputError if a folder cannot be read.
    """
    for place, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        folders[:] = [name for name in folders if not is_junk(name) and not _leads_back(place, name)]
        yield place, names


def is_image(name: str) -> bool:
    """Return whether a file of that name is read as an image."""
    return has_read_ending(name) and not is_junk(name)


def is_junk(name: str) -> bool:
    """Return whether a name is hidden, or junk of other systems and programs."""
    return name.startswith((".", "__MACOSX")) or name.lower() in _LITTER


def folders_in(folder: Path) -> list[Path]:
    """Return the subfolders of a folder without junk, sorted; raise InputError if it cannot be read."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not is_junk(path.name))
    except OSError as error:
        _refuse(error)
        raise


def one_level_too_many(domains: Mapping[Path, ClassFolders]) -> str:
    """Return an error message if class folders lie one level deeper than domain/class/image, else ''.

    Folders below a class belong to it, unless the class has no other images and its name is typical of a folder around
    class folders (``images``, or a split), or it is the only class of a domain.
    """
    deep = deep_classes(domains)
    for folder, found in domains.items():
        wrapping = [name for name in found.images if name in deep and name.casefold() in WRAPPING]
        if len(found.images) == 1:
            wrapping = [name for name in found.images if name in deep]
        if wrapping:
            files = [file.relative_to(folder) for name in wrapping for file in found.images[name]]
            below = sorted({file.parts[1] for file in files})
            return (
                f"{folder} has one folder level too many: {_listed(wrapping)} would be read as "
                f"{'classes' if len(wrapping) > 1 else 'a class'}, with the folders {_listed(below)} inside; move "
                f"these up into {folder}{', merged by name' if len(wrapping) > 1 else ''}"
            )
    splits = [folder.name for folder in domains if folder.name.casefold() in SPLITS]
    if len(splits) == len(domains) and deep and all(deep.issuperset(found.images) for found in domains.values()):
        place = next(iter(domains)).parent
        return f"{place} holds {_listed(splits)}, which are splits, not domains: the domains lie one level deeper"
    return ""


def deep_classes(domains: Mapping[Path, ClassFolders]) -> set[str]:
    """Return the names of classes whose images all lie in subfolders of the class folders."""
    flat: set[str] = set()
    names: set[str] = set()
    for folder, found in domains.items():
        names.update(found.images)
        flat.update(name for name, files in found.images.items() if any(file.parent == folder / name for file in files))
    return names - flat


def say_unread(files: Sequence[Path]) -> str:
    """Return a message on image-like files that are not read, with their number by extension."""
    endings = Counter(file.suffix.lower() or "without an extension" for file in files).most_common()
    noun = "file that could be an image is" if len(files) == 1 else "files that could be images are"
    counted = ", ".join(f"{number} {ending}" for ending, number in endings)
    return f"{len(files)} {noun} not read: {counted}, such as {files[0]}; convert them to JPEG or PNG"


def say_beside(files: Sequence[Path]) -> str:
    """Return a message on images that are not read because they lie beside class folders."""
    noun = "image lies" if len(files) == 1 else "images lie"
    return f"{len(files)} {noun} beside class folders, not in one, such as {files[0]}: not read"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (" ..." if len(names) > _NAMED else "")


def _leads_back(place: str, name: str) -> bool:
    """Return whether a folder is a link to one of its own parents, which would make the walk endless."""
    path = Path(place, name)
    if not path.is_symlink():
        return False
    target = os.path.realpath(path)
    return any(Path(os.path.realpath(passed)).is_relative_to(target) for passed in path.absolute().parents)


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename} cannot be read ({error.strerror}); make it readable, or remove it") from None
