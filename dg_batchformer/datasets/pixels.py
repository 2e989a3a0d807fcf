"""Pixel cache: every image of a dataset decoded once, into files that all processes read.

A dataset has planes of two kinds: ``eval-SIDE`` holds images squared to SIDE pixels by Pillow, bit-equal to the images
that are evaluated without a cache; ``train-SIDE`` keeps the aspect for random crops, and shrinks images whose short
side is above SIDE pixels to it. A checksum of every image is checked whenever it is read from a file; a damaged image
is decoded again.
"""

import errno
import os
import secrets
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, NamedTuple
from weakref import finalize

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dg_batchformer.datasets.decoding import Undecodable, decode, decode_whole, size_of, truncated
from dg_batchformer.datasets.folders import ImageFolders
from dg_batchformer.datasets.prepare.disk import amount
from dg_batchformer.errors import InputError
from dg_batchformer.runtime.parallel import in_every_core
from dg_batchformer.storage.folders import atomic_write, cache_dir
from dg_batchformer.storage.lock import held
from dg_batchformer.storage.safe_read import TABLE, open_regular
from dg_batchformer.storage.safe_write import open_own

Progress = Callable[[int, int], None]  # images done, of how many
_FORMER = "train"  # a plane of earlier versions, shrunk to 256 pixels
_AT_ONCE = 256  # images copied to a device together


class Kind(NamedTuple):
    """What a plane does to images: squares them to ``side`` pixels, or shrinks their short side to it."""

    side: int
    squared: bool

    @property
    def name(self) -> str:
        """The name of the folder of such a plane."""
        return f"{'eval' if self.squared else 'train'}-{self.side}"

    def size(self, native: tuple[int, int]) -> tuple[int, int]:
        """Return the height and width in the plane of an image of a height and width."""
        if self.squared:
            return self.side, self.side
        short, long = sorted(native)
        if short <= self.side:
            return native
        long = int(self.side * long / short)  # torchvision's rounding
        return (self.side, long) if native[0] <= native[1] else (long, self.side)

    def pixels(self, image: Image.Image, size: tuple[int, int]) -> bytes:
        """Return the bytes of an image in the plane, where its height and width are ``size``."""
        height, width = size
        if image.size != (width, height):
            # Shrinking for crops comes before a second, bilinear resize: Lanczos keeps the detail that one would.
            filtered = Image.Resampling.BILINEAR if self.squared else Image.Resampling.LANCZOS
            image = image.resize((width, height), filtered)
        return image.tobytes()


class Index(NamedTuple):
    """What is known of the images of a plane.

    Attributes:
        sizes: (images, 2), height and width.
        checksums: (images,), CRC-32 of their bytes.
        torn: which of them are truncated.

    """

    sizes: NDArray[np.int64]
    checksums: NDArray[np.uint32]
    torn: NDArray[np.int64]


class Plane:
    """The images of a dataset, uint8, (height, width, 3) each, one environment after another.

    A file is read where it is asked for, not mapped, since what was touched of a mapped one counts as memory of a run.

    Args:
        kind: what was done to the images.
        folder: of the plane.
        files: the images that it was made of.

    Attributes:
        sizes: (images, 2), height and width.
        notes: sentences on images that were repaired while decoding.
        restored: indices of images that were damaged in the cache, and decoded again; for the reader to clear.
        resident: all bytes on a GPU; None where they are read from the file.

    """

    def __init__(self, kind: Kind, folder: Path, files: Sequence[Path]) -> None:
        index = _read_index(folder, len(files))
        if index is None:
            raise InputError(f"{folder} is damaged; delete it, and it is built again")
        self.kind, self.folder, self.files = kind, folder, files
        self.sizes = torch.from_numpy(index.sizes)
        self.notes = [truncated(files[torn]) for torn in index.torn.tolist()]
        self.restored: list[int] = []
        self.resident: Tensor | None = None
        self._checksums = index.checksums.tolist()
        self._begins = [0, *(self.sizes.prod(dim=1) * 3).cumsum(0).tolist()]
        self._descriptor = os.open(folder / "pixels", os.O_RDONLY)
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

    def copy_to(self, device: torch.device) -> None:
        """Hold all images on a device."""
        resident = torch.empty(self._begins[-1], dtype=torch.uint8, device=device)
        for start in range(0, len(self.files), _AT_ONCE):
            part = range(start, min(start + _AT_ONCE, len(self.files)))
            resident[self._begins[part[0]] : self._begins[part[-1] + 1]] = self._read(part).to(device)
        self.resident = resident

    @property
    def num_bytes(self) -> int:
        """The size of all images."""
        return self._begins[-1]

    def _read(self, indices: Sequence[int]) -> Tensor:
        parts = bytearray()
        for index in indices:
            begin, end = self._begins[index], self._begins[index + 1]
            part = os.pread(self._descriptor, end - begin, begin)
            parts += part if zlib.crc32(part) == self._checksums[index] else self._restore(index)
        return torch.frombuffer(parts, dtype=torch.uint8)

    def _restore(self, index: int) -> bytes:
        """Decode an image again, and put it where its bytes were damaged."""
        height, width = self.sizes[index].tolist()
        image, _ = decode(self.files[index])
        part = self.kind.pixels(image, (height, width))
        if zlib.crc32(part) != self._checksums[index]:
            raise InputError(
                f"{self.folder} is damaged, and {self.files[index]} no longer gives the pixels that were cached; "
                "delete that folder, and it is built again"
            )
        try:
            with open_own(self.folder / "pixels", "r+b") as file:
                os.pwrite(file.fileno(), part, self._begins[index])
        except OSError:
            pass  # a cache that cannot be mended costs time, never a result
        self.restored.append(index)
        return part


def prepare_planes(dataset: ImageFolders, kinds: Sequence[Kind], progress: Progress) -> list[Path]:
    """Return the folders of planes; build those that are not there or damaged, together, decoding every image once.

    Waits for another process that builds them.

    Raises InputError where there is no room for them, or an image cannot be decoded.

    """
    folder = cache_dir() / "pixels" / dataset.identity().arrangement[:16]
    planes = {kind: folder / kind.name for kind in kinds}
    files = dataset.files
    if any(_read_index(plane, len(files)) is None for plane in planes.values()):
        with _writing(folder):
            missing = {kind: plane for kind, plane in planes.items() if _read_index(plane, len(files)) is None}
            if missing:
                _build(dataset, missing, progress)
    return list(planes.values())


@lru_cache(maxsize=4)
def open_plane(kind: Kind, folder: Path, files: tuple[Path, ...]) -> Plane:
    """Open a plane; the last ones stay open between runs."""
    return Plane(kind, folder, files)


def _read_index(folder: Path, images: int) -> Index | None:
    """Return the index of a plane of so many images; None where there is none, or it does not fit its pixels."""
    try:
        with open_regular(folder / "index.npz", TABLE) as file, np.load(file, allow_pickle=False) as arrays:
            index = Index(*(arrays[name] for name in Index._fields))  # each of them has a checksum, too
        whole = (folder / "pixels").stat().st_size == int(index.sizes.prod(axis=1).sum()) * 3
    except Exception:  # whatever damage leads NumPy and zipfile to
        return None
    return index if whole and len(index.sizes) == len(index.checksums) == images else None


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Be the only one who builds planes of a dataset, and say what to do where they cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder / "lock", waits=True):
            for left_over in [*folder.glob(".*"), folder / _FORMER]:  # of a build that was killed, or of old
                shutil.rmtree(left_over, ignore_errors=True)
            yield
    except OSError as error:
        raise InputError(
            f"the pixel cache cannot be written to {folder} ({error.strerror}); make room, set XDG_CACHE_HOME to "
            "another disk, or train with --data_path exact (data_path: exact in a sweep file)"
        ) from None


def _build(dataset: ImageFolders, planes: Mapping[Kind, Path], progress: Progress) -> None:
    temporary = {kind: plane.with_name(f".{plane.name}.{secrets.token_hex(16)}") for kind, plane in planes.items()}
    try:
        _write(dataset.files, temporary, progress)
        dataset.refuse_changed()
        for kind, plane in planes.items():
            shutil.rmtree(plane, ignore_errors=True)  # damaged
            temporary[kind].rename(plane)
    except BaseException:
        for folder in temporary.values():
            shutil.rmtree(folder, ignore_errors=True)
        raise


class _Target:
    """One plane while it is written: its file, and where in it which image goes."""

    def __init__(self, kind: Kind, folder: Path, file: IO[bytes], sizes: NDArray[np.int64]) -> None:
        self.kind, self.folder, self.file, self.sizes = kind, folder, file, sizes
        self.ends = (sizes.prod(axis=1) * 3).cumsum()
        self.checksums = np.zeros(len(sizes), np.uint32)
        _reserve(file, int(self.ends[-1]))

    def put(self, index: int, image: Image.Image) -> int:
        """Write an image, also from another process than that which has this target; return its checksum."""
        height, width = self.sizes[index].tolist()
        pixels = self.kind.pixels(image, (height, width))
        os.pwrite(self.file.fileno(), pixels, int(self.ends[index]) - len(pixels))
        return zlib.crc32(pixels)

    def complete(self, torn: Sequence[int]) -> None:
        os.fsync(self.file.fileno())
        index = Index(self.sizes, self.checksums, np.array(torn, np.int64))
        with atomic_write(self.folder / "index.npz") as file:
            np.savez(file, **index._asdict())


def _reserve(file: IO[bytes], size: int) -> None:
    """Allocate the space that a file will need, so that a full disk is reported now."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        elif shutil.disk_usage(file.name).free < size:  # macOS
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}; it takes {amount(size)}") from None


def _write(files: Sequence[Path], folders: Mapping[Kind, Path], progress: Progress) -> None:
    """Decode all images into the files of planes; truncated ones are noted."""
    whole = any(not kind.squared for kind in folders)
    native = list(in_every_core(_size, files)) if whole else [(0, 0)] * len(files)
    with ExitStack() as stack:
        targets = []
        for kind, folder in folders.items():
            folder.mkdir()
            file = stack.enter_context((folder / "pixels").open("wb"))
            targets.append(_Target(kind, folder, file, np.array([kind.size(one) for one in native], np.int64)))
        torn = _fill(targets, files, progress)
        for target in targets:
            target.complete(torn)


def _fill(targets: Sequence[_Target], files: Sequence[Path], progress: Progress) -> list[int]:
    """Decode every image once into all targets; return which ones are truncated."""

    def put_whole(index: int) -> list[int] | None:
        try:
            image = decode_whole(files[index])
        except Undecodable:
            return None
        return [target.put(index, image) for target in targets]

    torn: list[int] = []
    for index, checksums in enumerate(in_every_core(put_whole, range(len(files)))):
        if checksums is None:
            torn.append(index)
            image, _ = decode(files[index])
            checksums = [target.put(index, image) for target in targets]
        for target, checksum in zip(targets, checksums, strict=True):
            target.checksums[index] = checksum
        progress(index + 1, len(files))
    return torn


def _size(file: Path) -> tuple[int, int]:
    """Return height and width, from the header where it tells."""
    try:
        return size_of(file)
    except Undecodable:
        decoded, _ = decode(file)
        return decoded.height, decoded.width
