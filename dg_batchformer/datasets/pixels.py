"""Pixel cache: every image of a dataset decoded once, into files that all processes read.

Two planes: ``train`` keeps the aspect and shrinks the short side to 256 pixels (smaller images are kept as they are),
for random crops; ``eval-SIZE`` is squared to SIZE pixels by Pillow, bit-equal to what is evaluated without a cache.
"""

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO
from weakref import finalize

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dg_batchformer.datasets.decoding import Undecodable, decode, decode_whole, size_of, truncated
from dg_batchformer.datasets.folders import ImageFolders
from dg_batchformer.errors import InputError
from dg_batchformer.every_core import in_every_core
from dg_batchformer.lock import held
from dg_batchformer.regular_files import TABLE, read_text
from dg_batchformer.store import cache_dir, write_text

SHORT_SIDE = 256
Progress = Callable[[int, int], None]  # images done, of how many


class Plane:
    """The images of a dataset, uint8, (height, width, 3) each, one environment after another.

    A file is read where it is asked for, not mapped, since what was touched of a mapped one counts as memory of a run.

    Attributes:
        file: their bytes. resident: the same on a GPU; None where they are read from the file.
        sizes: (images, 2), height and width.
        notes: sentences on what was repaired while decoding.

    """

    def __init__(self, file: Path, sizes: Tensor, notes: list[str], resident: Tensor | None) -> None:
        self.file, self.sizes, self.notes, self.resident = file, sizes, notes, resident
        self._begins = [0, *(sizes.prod(dim=1) * 3).cumsum(0).tolist()]
        self._descriptor = os.open(file, os.O_RDONLY)
        finalize(self, os.close, self._descriptor)

    def image(self, index: int) -> Tensor:
        """Return one image, (3, height, width)."""
        height, width = self.sizes[index].tolist()
        if self.resident is None:
            pixels = self._read([index])
        else:
            pixels = self.resident[self._begins[index] : self._begins[index + 1]]
        return pixels.view(height, width, 3).permute(2, 0, 1)

    def images(self, indices: Sequence[int]) -> Tensor:
        """Return images of equal size, (n, 3, height, width)."""
        height, width = self.sizes[0].tolist()
        if self.resident is None:
            pixels = self._read(indices).view(-1, height, width, 3)
        else:
            rows = torch.tensor(indices, device=self.resident.device)
            pixels = self.resident.view(-1, height, width, 3)[rows]
        return pixels.permute(0, 3, 1, 2)

    def _read(self, indices: Sequence[int]) -> Tensor:
        places = [(self._begins[index], self._begins[index + 1]) for index in indices]
        parts = [os.pread(self._descriptor, end - begin, begin) for begin, end in places]
        if any(len(part) < end - begin for part, (begin, end) in zip(parts, places, strict=True)):
            raise InputError(f"{self.file} is cut short; delete {self.file.parent}, then it is built again")
        return torch.frombuffer(bytearray().join(parts), dtype=torch.uint8)


def prepare_planes(dataset: ImageFolders, image_sizes: Sequence[int | None], progress: Progress) -> list[Path]:
    """Return the folders of planes; those that are not there yet are built first, together, every image decoded once.

    Another process's building is waited for.

    Args:
        image_sizes: of squared planes; None for the one that keeps the aspect.

    Raises InputError where there is no room for them, or an image cannot be decoded.

    """
    folder = cache_dir() / "pixels" / dataset.identity().arrangement[:16]
    planes = {size: folder / ("train" if size is None else f"eval-{size}") for size in image_sizes}
    if not all(plane.is_dir() for plane in planes.values()):
        with _writing(folder):
            missing = {size: plane for size, plane in planes.items() if not plane.is_dir()}
            if missing:
                _build(dataset.files, missing, progress)
    return list(planes.values())


@lru_cache(maxsize=4)
def open_plane(folder: Path, device: torch.device) -> Plane:
    """Open a plane, on a GPU if it leaves half of its free memory; the last ones stay open between runs."""
    sizes = torch.from_numpy(np.load(folder / "sizes.npy", allow_pickle=False))
    total = int((sizes.prod(dim=1) * 3).sum())
    resident = None
    if device.type == "cuda" and total < torch.cuda.mem_get_info(device)[0] // 2:
        mapped = torch.from_file(str(folder / "pixels"), shared=False, size=total, dtype=torch.uint8)
        resident = mapped.to(device)
    return Plane(folder / "pixels", sizes, json.loads(read_text(folder / "notes.json", TABLE)), resident)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Be the only one who builds planes of a dataset, and teach where they cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder / "lock", waits=True):
            for left_over in folder.glob(".*"):  # of a build that was killed
                shutil.rmtree(left_over)
            yield
    except OSError as error:
        raise InputError(
            f"the pixel cache cannot be written to {folder} ({error.strerror}); make room, set XDG_CACHE_HOME to "
            "another disk, or give --data_path exact"
        ) from None


def _build(files: Sequence[Path], planes: Mapping[int | None, Path], progress: Progress) -> None:
    temporary = {size: plane.with_name(f".{plane.name}.{secrets.token_hex(16)}") for size, plane in planes.items()}
    try:
        _write(files, temporary, progress)
        for size, plane in planes.items():
            temporary[size].rename(plane)
    except BaseException:
        for folder in temporary.values():
            shutil.rmtree(folder, ignore_errors=True)
        raise


class _Target:
    """One plane while it is written: its file, and where in it which image goes."""

    def __init__(self, folder: Path, file: IO[bytes], sizes: NDArray[np.int64]) -> None:
        self.folder, self.file, self.sizes = folder, file, sizes
        self.ends = (sizes.prod(axis=1) * 3).cumsum()
        os.posix_fallocate(self.file.fileno(), 0, int(self.ends[-1]))  # a full disk says so now

    def put(self, index: int, image: Image.Image) -> None:
        height, width = self.sizes[index].tolist()
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        os.pwrite(self.file.fileno(), image.tobytes(), int(self.ends[index]) - 3 * height * width)

    def complete(self, notes: Sequence[str]) -> None:
        os.fsync(self.file.fileno())
        with (self.folder / "sizes.npy").open("wb") as file:
            np.save(file, self.sizes)
        write_text(self.folder / "notes.json", json.dumps(notes))


def _write(files: Sequence[Path], folders: Mapping[int | None, Path], progress: Progress) -> None:
    """Decode all images into the files of planes; truncated ones are noted."""
    native = list(in_every_core(_size, files)) if None in folders else []
    with ExitStack() as stack:
        targets = []
        for size, folder in folders.items():
            folder.mkdir()
            file = stack.enter_context((folder / "pixels").open("wb"))
            sizes = [shrunk(one) for one in native] if size is None else [(size, size)] * len(files)
            targets.append(_Target(folder, file, np.array(sizes, np.int64)))
        torn = _fill(targets, files, progress)
        for target in targets:
            target.complete([truncated(files[index]) for index in torn])


def _fill(targets: Sequence[_Target], files: Sequence[Path], progress: Progress) -> list[int]:
    """Decode every image once into all targets; return which ones are truncated."""

    def put_whole(index: int) -> bool:
        try:
            image = decode_whole(files[index])
        except Undecodable:
            return False
        for target in targets:
            target.put(index, image)
        return True

    torn: list[int] = []
    for index, whole in enumerate(in_every_core(put_whole, range(len(files)))):
        if not whole:
            torn.append(index)
        progress(index + 1, len(files))
    for index in torn:
        image, _ = decode(files[index])
        for target in targets:
            target.put(index, image)
    return torn


def _size(file: Path) -> tuple[int, int]:
    """Return height and width, from the header where it tells."""
    try:
        return size_of(file)
    except Undecodable:
        decoded, _ = decode(file)
        return decoded.height, decoded.width


def shrunk(size: tuple[int, int]) -> tuple[int, int]:
    """Return the height and width in the plane that keeps the aspect, of an image of a height and width."""
    short, long = sorted(size)
    if short <= SHORT_SIDE:
        return size
    long = int(SHORT_SIDE * long / short)  # torchvision's rounding
    return (SHORT_SIDE, long) if size[0] <= size[1] else (long, SHORT_SIDE)
