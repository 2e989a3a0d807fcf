"""Pixel cache: every image of a dataset decoded once, into files that are memory-mapped, shared by all processes.

Two planes: ``train`` keeps the aspect and shrinks the short side to 256 pixels (smaller images are kept as they are),
for random crops; ``eval-SIZE`` is squared to SIZE pixels by Pillow, bit-equal to what is evaluated without a cache.
"""

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dg_batchformer.datasets.folders import UNDECODABLE, ImageFolders, decode, decode_whole, truncated
from dg_batchformer.errors import InputError
from dg_batchformer.store import cache_dir, write_text

SHORT_SIDE = 256
Progress = Callable[[int, int], None]  # images done, of how many


class Plane:
    """The images of a dataset, one environment after another, as bytes.

    Attributes:
        pixels: uint8, all images one after another, (height, width, 3) each.
        sizes: (images, 2), height and width.
        notes: sentences on what was repaired while decoding.

    """

    def __init__(self, pixels: Tensor, sizes: Tensor, notes: list[str]) -> None:
        self.pixels, self.sizes, self.notes = pixels, sizes, notes
        self.ends = (sizes.prod(dim=1) * 3).cumsum(0).tolist()

    def image(self, index: int) -> Tensor:
        """Return a view of one image, (3, height, width)."""
        height, width = self.sizes[index].tolist()
        end = self.ends[index]
        return self.pixels[end - 3 * height * width : end].view(height, width, 3).permute(2, 0, 1)

    def images(self, indices: Sequence[int]) -> Tensor:
        """Return images of equal size, (n, 3, height, width)."""
        height, width = self.sizes[0].tolist()
        rows = torch.tensor(indices, device=self.pixels.device)
        return self.pixels.view(-1, height, width, 3)[rows].permute(0, 3, 1, 2)


def prepare_plane(dataset: ImageFolders, image_size: int | None, progress: Progress) -> Path:
    """Return the folder of a plane, built first where it is not there yet; another process's building is waited for.

    Args:
        image_size: of the squared plane; None for the one that keeps the aspect.

    Raises InputError where there is no room for it, or an image cannot be decoded.

    """
    name = "train" if image_size is None else f"eval-{image_size}"
    folder = cache_dir() / "pixels" / dataset.identity().arrangement[:16]
    plane = folder / name
    if not plane.is_dir():
        with _writing(folder, name):
            if not plane.is_dir():
                _build(dataset, image_size, plane, progress)
    return plane


@lru_cache(maxsize=4)
def open_plane(folder: Path, device: torch.device) -> Plane:
    """Open a plane, on a GPU if it leaves half of its free memory; the last ones stay open between runs."""
    sizes = torch.from_numpy(np.load(folder / "sizes.npy", allow_pickle=False))
    total = int((sizes.prod(dim=1) * 3).sum())
    pixels = torch.from_file(str(folder / "pixels"), shared=False, size=total, dtype=torch.uint8)
    if device.type == "cuda" and total < torch.cuda.mem_get_info(device)[0] // 2:
        pixels = pixels.to(device)
    return Plane(pixels, sizes, json.loads((folder / "notes.json").read_text()))


@contextmanager
def _writing(folder: Path, name: str) -> Iterator[None]:
    """Be the only one who builds a plane, and teach where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for left_over in folder.glob(f".{name}.*"):  # of a build that was killed
                shutil.rmtree(left_over)
            yield
    except OSError as error:
        raise InputError(
            f"the pixel cache cannot be written to {folder} ({error.strerror}); make room, set XDG_CACHE_HOME to "
            "another disk, or give --data_path exact"
        ) from None


def _build(dataset: ImageFolders, image_size: int | None, plane: Path, progress: Progress) -> None:
    temporary = plane.with_name(f".{plane.name}.{uuid.uuid4().hex}")
    temporary.mkdir()
    try:
        sizes, notes = _write(dataset.files, image_size, temporary / "pixels", progress)
        with (temporary / "sizes.npy").open("wb") as file:
            np.save(file, sizes)
        write_text(temporary / "notes.json", json.dumps(notes))
        temporary.rename(plane)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _write(
    files: Sequence[Path], image_size: int | None, target: Path, progress: Progress
) -> tuple[np.ndarray, list[str]]:
    """Decode all images into one file; return their sizes, and sentences on truncated ones."""
    with ThreadPoolExecutor(os.cpu_count()) as pool, target.open("wb") as out:
        sizes = np.array([_shrunk(size, image_size) for size in pool.map(_size, files)], dtype=np.int64)
        ends = (sizes.prod(axis=1) * 3).cumsum()
        os.posix_fallocate(out.fileno(), 0, int(ends[-1]))  # a full disk says so now

        def put(index: int, image: Image.Image) -> None:
            height, width = sizes[index].tolist()
            if image.size != (width, height):
                image = image.resize((width, height), Image.Resampling.BILINEAR)
            os.pwrite(out.fileno(), image.tobytes(), int(ends[index]) - 3 * height * width)

        def put_whole(index: int) -> bool:
            try:
                image = decode_whole(files[index])
            except UNDECODABLE:
                return False
            put(index, image)
            return True

        whole = []
        for done in pool.map(put_whole, range(len(files))):
            whole.append(done)
            progress(len(whole), len(files))
        torn = [index for index, done in enumerate(whole) if not done]
        for index in torn:
            put(index, decode(files[index])[0])
        os.fsync(out.fileno())
    return sizes, [truncated(files[index]) for index in torn]


def _size(file: Path) -> tuple[int, int]:
    """Return height and width, from the header where it tells."""
    try:
        with Image.open(file) as image:
            return image.height, image.width
    except UNDECODABLE:
        decoded, _ = decode(file)
        return decoded.height, decoded.width


def _shrunk(size: tuple[int, int], image_size: int | None) -> tuple[int, int]:
    if image_size is not None:
        return image_size, image_size
    short, long = sorted(size)
    if short <= SHORT_SIDE:
        return size
    long = int(SHORT_SIDE * long / short)  # torchvision's rounding
    return (SHORT_SIDE, long) if size[0] <= size[1] else (long, SHORT_SIDE)
