"""Pixel cache: all images of a dataset, decoded once into files that all processes share.

A dataset has two kinds of planes. ``eval-SIDE`` holds images resized by Pillow to SIDE x SIDE pixels, bit-equal to
evaluation without a cache. ``train-SIDE`` keeps the aspect ratio for random crops, and shrinks images whose short side
exceeds SIDE pixels. Every image has a checksum that is verified on each read; a damaged image is decoded again.
"""

import errno
import os
import secrets
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial
from itertools import accumulate, pairwise
from pathlib import Path
from threading import Lock
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

Progress = Callable[[int, int], None]  # (images done, total)
_FORMER = "train"  # plane of earlier versions
_AT_ONCE = 256  # images copied to a device together
_RESTORING = Lock()


class Kind(NamedTuple):
    """How a plane resizes images: to ``side`` x ``side`` pixels, or to a short side of at most ``side``."""

    side: int
    squared: bool

    @property
    def name(self) -> str:
        """Folder name of such a plane."""
        return f"{'eval' if self.squared else 'train'}-{self.side}"

    def size(self, native: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) in the plane of an image of (height, width) ``native``."""
        if self.squared:
            return self.side, self.side
        short, long = sorted(native)
        if short <= self.side:
            return native
        long = int(self.side * long / short)  # torchvision's rounding
        return (self.side, long) if native[0] <= native[1] else (long, self.side)

    def pixels(self, image: Image.Image, size: tuple[int, int]) -> bytes:
        """Resize an image to (height, width) ``size``, and return its bytes."""
        height, width = size
        if image.size != (width, height):
            # Crops are resized a second time, bilinearly, so use Lanczos here to keep the detail.
            filtered = Image.Resampling.BILINEAR if self.squared else Image.Resampling.LANCZOS
            image = image.resize((width, height), filtered)
        return image.tobytes()


class Index(NamedTuple):
    """Index of the images in a plane.

    Attributes:
        sizes: (images, 2), height and width.
        checksums: (images,), CRC-32 of their bytes.
        torn: indices of truncated images.

    """

    sizes: NDArray[np.int64]
    checksums: NDArray[np.uint32]
    torn: NDArray[np.int64]


class Plane:
    """All images of a dataset as uint8 (height, width, 3), ordered by environment.

    The file is read, not memory-mapped, as mapped pages would count toward the memory of a run.

    Args:
        kind: how the images were resized.
        folder: of the plane.
        files: the source images.

    Attributes:
        sizes: (images, 2), height and width.
        begins: (images,), position of their first byte.
        notes: messages on images that were repaired while decoding.
        restored: indices of damaged images that were decoded again; the caller clears it.
        resident: all bytes on a GPU; None if they are read from the file.

    """

    def __init__(self, kind: Kind, folder: Path, files: Sequence[Path]) -> None:
        index = _read_index(folder, len(files))
        if index is None:
            raise InputError(f"{folder} is damaged; delete it to have it rebuilt")
        self.kind, self.folder, self.files = kind, folder, files
        self.sizes = torch.from_numpy(index.sizes)
        self.notes = [truncated(files[torn]) for torn in index.torn.tolist()]
        self.restored: list[int] = []
        self.resident: Tensor | None = None
        self._checksums = index.checksums.tolist()
        ends = (self.sizes.prod(dim=1) * 3).cumsum(0)
        self.begins = ends.roll(1)
        self.begins[:1] = 0
        self._begins = [0, *ends.tolist()]
        self._descriptor = os.open(folder / "pixels", os.O_RDONLY)
        finalize(self, os.close, self._descriptor)

    def image(self, index: int) -> Tensor:
        """Return one image, (3, height, width)."""
        height, width = self.sizes[index].tolist()
        if self.resident is None:
            pixels = self.read([index])
        else:
            pixels = self.resident[self._begins[index] : self._begins[index + 1]]
        return pixels.view(height, width, 3).permute(2, 0, 1)

    def images(self, indices: Sequence[int]) -> Tensor:
        """Read images of equal size from the file, (n, 3, height, width)."""
        height, width = self.sizes[0].tolist()
        return self.read(indices).view(-1, height, width, 3).permute(0, 3, 1, 2)

    def copy_to(self, device: torch.device) -> None:
        """Copy all images to a device."""
        resident = torch.empty(self._begins[-1], dtype=torch.uint8, device=device)
        for start in range(0, len(self.files), _AT_ONCE):
            part = range(start, min(start + _AT_ONCE, len(self.files)))
            resident[self._begins[part[0]] : self._begins[part[-1] + 1]] = self.read(part).to(device)
        self.resident = resident

    @property
    def num_bytes(self) -> int:
        """Size of all images, in bytes."""
        return self._begins[-1]

    def read(self, indices: Sequence[int]) -> Tensor:
        """Read the bytes of images from the file, one image after the other; PyTorch's number of threads share them."""
        ends = list(accumulate(self._begins[index + 1] - self._begins[index] for index in indices))
        pixels = torch.empty(ends[-1], dtype=torch.uint8)
        view = pixels.numpy().data
        parts = [view[begin:end] for begin, end in pairwise([0, *ends])]
        threads = torch.get_num_threads()
        spread = map if min(threads, len(parts)) == 1 else _readers(threads).map
        for _ in spread(self._fill, indices, parts):
            pass
        return pixels

    def _fill(self, index: int, part: memoryview) -> None:
        """Read an image; the system's calls and the checksum leave the other threads running."""
        os.preadv(self._descriptor, [part], self._begins[index])
        if zlib.crc32(part) != self._checksums[index]:
            with _RESTORING:  # decoding is not thread-safe
                part[:] = self._restore(index)

    def _restore(self, index: int) -> bytes:
        """Decode a damaged image again, and repair it in the cache."""
        height, width = self.sizes[index].tolist()
        image, _ = decode(self.files[index])
        part = self.kind.pixels(image, (height, width))
        if zlib.crc32(part) != self._checksums[index]:
            raise InputError(
                f"{self.folder} is damaged, and {self.files[index]} changed since it was cached; delete that folder to "
                "have it rebuilt"
            )
        try:
            with open_own(self.folder / "pixels", "r+b") as file:
                os.pwrite(file.fileno(), part, self._begins[index])
        except OSError:
            pass  # a failed repair costs only time
        self.restored.append(index)
        return part


@lru_cache
def _readers(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "pixels")


os.register_at_fork(after_in_child=_readers.cache_clear)  # threads are not inherited


def prepare_planes(dataset: ImageFolders, kinds: Sequence[Kind], progress: Progress) -> list[Path]:
    """Return the folders of planes; build missing or damaged ones together, decoding every image once.

    If another process is building them, wait, and call ``progress`` every second, which may raise to stop.

    Raises InputError if the disk is full, or an image cannot be decoded.

    """
    folder = cache_dir() / "pixels" / dataset.identity().arrangement[:16]
    planes = {kind: folder / kind.name for kind in kinds}
    files = dataset.files
    if any(_read_index(plane, len(files)) is None for plane in planes.values()):
        with _writing(folder, partial(progress, 0, len(files))):
            missing = {kind: plane for kind, plane in planes.items() if _read_index(plane, len(files)) is None}
            if missing:
                _build(dataset, missing, progress)
    return list(planes.values())


@lru_cache(maxsize=4)
def open_plane(kind: Kind, folder: Path, files: tuple[Path, ...]) -> Plane:
    """Open a plane; recent ones stay open between runs."""
    return Plane(kind, folder, files)


def _read_index(folder: Path, images: int) -> Index | None:
    """Return the index of a plane; None if it is missing, damaged, or of another number of images."""
    try:
        with open_regular(folder / "index.npz", TABLE) as file, np.load(file, allow_pickle=False) as arrays:
            index = Index(*(arrays[name] for name in Index._fields))  # npz entries have checksums too
        whole = (folder / "pixels").stat().st_size == int(index.sizes.prod(axis=1).sum()) * 3
    except Exception:  # NumPy and zipfile may raise anything on damaged files
        return None
    return index if whole and len(index.sizes) == len(index.checksums) == images else None


@contextmanager
def _writing(folder: Path, waiting: Callable[[], object]) -> Iterator[None]:
    """Lock the planes of a dataset for building; raise InputError if they cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder / "lock", waiting=waiting):
            for left_over in [*folder.glob(".*"), folder / _FORMER]:  # from a killed build or an earlier version
                shutil.rmtree(left_over, ignore_errors=True)
            yield
    except OSError as error:
        raise InputError(
            f"the pixel cache cannot be written to {folder} ({error.strerror}); free space, set XDG_CACHE_HOME to "
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
    """A plane being written: its file, and the position of every image in it."""

    def __init__(self, kind: Kind, folder: Path, file: IO[bytes], sizes: NDArray[np.int64]) -> None:
        self.kind, self.folder, self.file, self.sizes = kind, folder, file, sizes
        self.ends = (sizes.prod(axis=1) * 3).cumsum()
        self.checksums = np.zeros(len(sizes), np.uint32)
        _reserve(file, int(self.ends[-1]))

    def put(self, index: int, image: Image.Image) -> int:
        """Write an image and return its checksum; forked processes may call this too."""
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
    """Allocate the space of a file in advance, so that a full disk is reported at once."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        elif shutil.disk_usage(file.name).free < size:  # macOS
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}; it needs {amount(size)}") from None


def _write(files: Sequence[Path], folders: Mapping[Kind, Path], progress: Progress) -> None:
    """Decode all images into the files of planes, and write their indices."""
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
    """Decode every image once into all targets; return the indices of truncated ones."""

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
    """Return (height, width), from the header if possible."""
    try:
        return size_of(file)
    except Undecodable:
        decoded, _ = decode(file)
        return decoded.height, decoded.width
