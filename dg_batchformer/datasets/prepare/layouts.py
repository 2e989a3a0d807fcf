"""Convert other folder layouts to environment/class/image with hard links, which need no disk space.

Supported are DomainBed's archives, Transfer-Learning-Library's folders (``Real_World``), Dassl's (lower case, split
into ``train``, ``val`` ..., VLCS with numbered classes), and Office-31's archive (``amazon/images/``), at any depth up
to ``_DEPTH``.
"""

import filecmp
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from tqdm import tqdm

from dg_batchformer.catalog.class_folders import WRAPPING, folders_in, is_image, walk
from dg_batchformer.catalog.datasets import DatasetFacts
from dg_batchformer.datasets.prepare.disk import writing
from dg_batchformer.datasets.prepare.sources import Source
from dg_batchformer.errors import InputError
from dg_batchformer.storage.safe_read import IMAGE, open_regular
from dg_batchformer.storage.safe_write import open_own

_DEPTH = 5  # folders around the environments


def find_environments(folder: Path, facts: DatasetFacts, source: Source) -> dict[str, Path]:
    """Find the environments in or below a folder, by catalog name; incomplete if no parent folder has all."""
    best: dict[str, Path] = {}
    level = [folder]
    for _ in range(_DEPTH):
        below = []
        for place in level:
            children = folders_in(place)
            found = _recognised(children, facts, source)
            if len(found) == len(facts.names):
                return found
            best = max(best, found, key=len)
            below += children
        level = below
    return best


def _recognised(folders: Iterable[Path], facts: DatasetFacts, source: Source) -> dict[str, Path]:
    spellings = {_plain(name): name for name in facts.names}
    spellings |= {_plain(other): name for other, name in source.environments.items()}
    found: dict[str, Path] = {}
    for folder in folders:
        name = spellings.get(_plain(folder.name))
        if name is not None and name in found:
            raise InputError(f"both {found[name]} and {folder} may be {name} of {facts.name}; remove one of them")
        if name is not None:
            found[name] = folder
    return found


def environment_named(given: str, facts: DatasetFacts, source: Source) -> str | None:
    """Return the catalog name of an environment with another spelling; None if there is none."""
    return next(iter(_recognised([Path(given)], facts, source)), None)


def _plain(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())


def images_of(environments: Mapping[str, Path], source: Source, left_out: frozenset[str]) -> Iterator[tuple[str, Path]]:
    """Yield (place, file) of every image, where a place is environment/class/image.

    An image repeated in several splits is yielded once; different images of the same name get their split as a prefix.
    """
    for name, folder in environments.items():
        taken: dict[str, Path] = {}
        for split, classes in _splits(folder):
            for relative, file in _images_below(classes):
                kind, _, rest = relative.partition("/")
                place = f"{name}/{source.classes.get(kind, kind)}/{rest}"
                if place in taken:
                    if filecmp.cmp(file, taken[place], shallow=False):
                        continue
                    place = f"{place.rpartition('/')[0]}/{split}_{file.name}"
                taken[place] = file
                if place not in left_out:
                    yield place, file


def _splits(environment: Path) -> list[tuple[str, Path]]:
    """Return (split, folder with class folders): the environment itself, or its splits or folder ``images``."""
    below = folders_in(environment)
    if below and all(path.name.casefold() in WRAPPING for path in below):
        return [(path.name, path) for path in below]
    return [("", environment)]


def _images_below(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield (class/image, file) of the images in class folders."""
    for place, names in sorted(walk(folder)):
        relative = Path(place).relative_to(folder)
        if relative.parts:
            yield from (
                (f"{relative.as_posix()}/{name}", Path(place, name)) for name in sorted(names) if is_image(name)
            )


def link_images(images: Iterable[tuple[str, Path]], folder: Path, note: Callable[[str], None]) -> None:
    """Hard-link images to their places below a folder; copy them, with a note, if links are not possible."""
    made, copied = set(), False
    with writing(folder):
        for place, file in tqdm(images, desc=folder.name, unit=" images", disable=None, leave=False):
            target = folder / place
            if target.parent not in made:
                target.parent.mkdir(parents=True, exist_ok=True)
                made.add(target.parent)
            copied = not _link(file, target) or copied
    if copied:
        note(f"{folder} does not support hard links to the given images, so they are copied")


def _link(file: Path, target: Path) -> bool:
    """Hard-link or else copy a file; return whether it is a link."""
    try:
        os.link(os.path.realpath(file), target)
    except FileExistsError:
        raise
    except OSError:  # file systems without hard links raise many codes; a real error shows when copying
        # x: also detects names that are equal on this file system only
        with open_regular(file, IMAGE) as content, open_own(target, "xb") as copy:
            shutil.copyfileobj(content, copy)
        return False
    return True
