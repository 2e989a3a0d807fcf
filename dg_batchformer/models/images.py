"""Find and read the image files to predict on; a file that cannot be decoded gets a note instead of pixels."""

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dg_batchformer.catalog.class_folders import images_below, say_unread
from dg_batchformer.datasets.decoding import decode, truncated
from dg_batchformer.errors import InputError
from dg_batchformer.training.augment import Transform

_MAX_WORKERS = 8
_WORTH_WORKERS = 256  # below this many images, starting worker processes takes longer than reading


class ReadImage(NamedTuple):
    """An image as uint8 (3, size, size), or None if it cannot be decoded; ``note`` says what is wrong with it."""

    file: Path
    pixels: Tensor | None
    note: str


def find_images(given: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Expand files, folders (all images below them) and globs; return each file once, and messages on the rest.

    A file given by name is read whatever its extension.
    """
    found: dict[Path, None] = {}
    unread: dict[Path, None] = {}
    problems = []
    for name in given:
        path = Path(name)
        files, left_out = _files([path] if path.exists() else _matches(name))
        if not files and not left_out:
            lack = "holds no images" if path.is_dir() else "does not exist, and no file matches it"
            problems.append(f"{name} {lack}")
        found.update(dict.fromkeys(files))
        unread.update(dict.fromkeys(left_out))
    return list(found), problems + ([say_unread(list(unread))] if unread else [])


def _matches(pattern: str) -> list[Path]:
    """Return the paths that match a glob, sorted; ``**`` matches any number of folders."""
    return [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207  # may be absolute


def _files(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the given files plus the images below given folders, and image-like files there that are not read."""
    images: list[Path] = []
    unread: list[Path] = []
    for path in paths:
        read, left_out = images_below(path) if path.is_dir() else ([path], [])
        images += read
        unread += left_out
    return images, [file for file in unread if file not in {*images}]


def read_images(files: Sequence[Path], size: int, batch_size: int) -> Iterator[list[ReadImage]]:
    """Yield images in batches, in order, with the evaluation transform; workers prefetch if there are many."""
    workers = min(_MAX_WORKERS, torch.get_num_threads()) if len(files) >= _WORTH_WORKERS else 0
    yield from DataLoader(_Files(files, size), batch_size, num_workers=workers, collate_fn=list)


class _Files(Dataset[ReadImage]):
    def __init__(self, files: Sequence[Path], size: int) -> None:
        self.files = files
        self.transform = Transform(size)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> ReadImage:
        file = self.files[index]
        try:
            image, whole = decode(file)
        except InputError as error:
            return ReadImage(file, None, str(error))
        return ReadImage(file, self.transform(image, None), "" if whole else truncated(file))
