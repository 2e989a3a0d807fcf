"""Image files that a person named: found, and read one by one, the bad ones with their reason."""

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dg_batchformer.datasets.decoding import decode, truncated
from dg_batchformer.datasets.folders import image_files
from dg_batchformer.errors import InputError
from dg_batchformer.training.augment import Transform

_MAX_WORKERS = 8
_WORTH_WORKERS = 256  # images: for fewer, starting processes takes longer than reading


class ReadImage(NamedTuple):
    """An image as bytes (3, size, size), None where it cannot be decoded; ``note`` says what is wrong with it."""

    file: Path
    pixels: Tensor | None
    note: str


def find_images(given: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Return the files meant by files, folders (all images below) and globs, each once; and sentences on the rest.

    A file that is named is taken whatever its ending.
    """
    found: dict[Path, None] = {}
    problems = []
    for name in given:
        path = Path(name)
        if path.is_dir():
            files, lack = image_files(path), "holds no images"
        elif path.exists():
            files, lack = [path], ""
        else:
            files, lack = _matches(name), "is not there, and no file matches it"
        if not files:
            problems.append(f"{name} {lack}")
        found.update(dict.fromkeys(files))
    return list(found), problems


def _matches(pattern: str) -> list[Path]:
    """Return the files of a glob, and the images below its folders; ``**`` spans folders."""
    paths = [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207  # may be absolute
    return [file for path in paths for file in (image_files(path) if path.is_dir() else [path])]


def read_images(files: Sequence[Path], size: int, batch_size: int) -> Iterator[list[ReadImage]]:
    """Yield images in batches, in order, transformed as for evaluation; read ahead where there are many."""
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
