"""Feature cache: the output of a frozen prefix, computed once per image and shared by all runs.

Every image has an evaluation view and ``feature_views`` augmented views, each with its own seed. A cache is a file of
rows, ordered by view, with a checksum per block of rows. While it is built, every batch has a checksum too, so that an
interrupted build resumes behind its last intact batch.
"""

import errno
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from dg_batchformer.datasets import Dataset
from dg_batchformer.errors import MALFORMED, InputError
from dg_batchformer.networks.base import FeaturizerModule
from dg_batchformer.networks.compilation import compile_errors, compiled
from dg_batchformer.runtime.parallel import usable_cores
from dg_batchformer.seeds import seed_hash
from dg_batchformer.storage.folders import write_text
from dg_batchformer.storage.lock import Lock, held
from dg_batchformer.storage.safe_read import ARCHIVE, TABLE, open_regular, read_text
from dg_batchformer.storage.safe_write import open_own
from dg_batchformer.training.feature_recipe import Recipe
from dg_batchformer.training.loaders import Batch, Loader, Request, Task, on_device
from dg_batchformer.training.positions import Positions, seeds_of, split, whole_numbers

_BATCH = 64
_BUILT = "built"  # checksums of the batches that an unfinished build has written
_BLOCK_ROWS = 4096  # rows per checksum
_MOST_IN_FP32 = 4 * 2**30  # bytes; larger caches use fp16, with a relative error of at most 2^-11 (absolute: 2^-25)
_DTYPES = {"float32": torch.float32, "float16": torch.float16}


class Features(NamedTuple):
    """Features ``((1 + views) * images, ...)``, ordered by view, then by image; the evaluation view is first."""

    rows: Tensor
    images: int


class FeatureLoader:
    """A ``Loader`` that yields cached features instead of images."""

    def __init__(self, dataset: Dataset, features: Features, views: int) -> None:
        self.positions = Positions(dataset)
        self.features, self.views = features, views

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    @property
    def conditions(self) -> dict[str, Any]:
        """Conditions for records: the dtype, if it is not float32."""
        return {"feature_dtype": "float16"} if self.features.rows.dtype == torch.float16 else {}

    def stream(self, tasks: Iterable[Task]) -> Iterator[list[Batch]]:
        """Yield the batches of every task, in order; the seed of a sample selects its view."""
        for task in tasks:
            positions, labels = self.positions.of(task)
            rows = positions
            if (seeds := seeds_of(task)) is not None:
                rows = positions + (whole_numbers(seeds) % self.views + 1) * self.features.images
            yield split(task, self.features.rows.index_select(0, rows).float(), labels)


def prepare_features(
    recipe: Recipe,
    dataset: Dataset,
    featurizer: FeaturizerModule,
    device: torch.device,
    open_images: Callable[[], Any],
    note: Callable[[str], None],
    progress: Callable[[int, int], None],
    *,
    compiles: bool,
) -> Features:
    """Return the features of a recipe; compute them first if needed, or wait for a process that does.

    Args:
        recipe: of the features.
        dataset: the images.
        featurizer: computes the features.
        device: of the featurizer.
        open_images: opens a ``Loader`` for the images, as a context manager.
        note: called with messages for the user.
        progress: called with (rows done, total), every second while another process computes the features; it may
            raise to stop.
        compiles: whether to compile the frozen prefix, with its constants folded in.

    Raises InputError if the disk is full.

    """
    folder = recipe.folder
    index = folder / "index.json"
    if not index.is_file() or _damage(folder):
        with _writing(folder, partial(progress, 0, num_rows(dataset, recipe.views))) as lock:
            if index.is_file() and (damage := _damage(folder)):
                note(f"{folder / 'rows'} {damage}; it is computed again")
                index.unlink()
                (folder / "rows").unlink(missing_ok=True)
            if not index.is_file():
                with _every_core(), open_images() as loader, torch.no_grad():
                    prefix = _compiled(featurizer.eval(), note) if compiles else featurizer.eval().cacheable
                    _build(folder, dataset, prefix, loader, recipe.views, device, progress, lock)
    features = open_features(folder)
    if features.rows.dtype == torch.float16:
        note(
            f"cached features are stored in fp16, with a relative error of at most 0.05 %: fp32 would exceed "
            f"{_MOST_IN_FP32 / 2**30:.0f} GiB"
        )
    return features


@contextmanager
def _every_core() -> Iterator[None]:
    """Use all cores inside the context, as other workers of a sweep mostly wait for the same features."""
    threads = torch.get_num_threads()
    torch.set_num_threads(usable_cores())
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def open_features(folder: Path) -> Features:
    """Memory-map a complete cache; recent ones stay open between runs."""
    file = (folder / "rows").stat()
    return _mapped(folder, file.st_ino, file.st_mtime_ns)


@lru_cache(maxsize=2)
def _mapped(folder: Path, inode: int, changed: int) -> Features:
    """Memory-map a cache for reading; its file may be replaced by another one."""
    index = _read_index(folder)
    shape = [index.rows, *index.shape]
    rows = torch.from_file(str(folder / "rows"), shared=False, size=_product(shape), dtype=index.dtype)
    return Features(rows.view(shape), index.images)


class _Index(NamedTuple):
    """The facts of a complete cache, which its ``index.json`` holds.

    Args:
        images: number of images. rows: number of rows. shape: of a row.
        checksums: of blocks of rows.

    """

    images: int
    rows: int
    shape: list[int]
    dtype: torch.dtype
    checksums: list[int]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return _product(self.shape) * self.dtype.itemsize


def _read_index(folder: Path) -> _Index:
    """Read the index of a cache; raise one of MALFORMED if it is damaged."""
    content = json.loads(read_text(folder / "index.json", TABLE))
    shape, checksums = (list(map(int, content[name])) for name in ("shape", "checksums"))
    return _Index(int(content["images"]), int(content["rows"]), shape, _DTYPES[content["dtype"]], checksums)


def num_rows(dataset: Dataset, views: int) -> int:
    """Return how many rows the features of a dataset have."""
    return (1 + views) * sum(map(len, dataset))


def _compiled(featurizer: FeaturizerModule, note: Callable[[str], None]) -> Callable[[Tensor], Tensor]:
    """Return the frozen prefix, compiled for batches of one size; shorter ones are filled up.

    If it cannot be compiled, it computes uncompiled, with a note.
    """
    fast: Callable[[Tensor], Tensor] = compiled(featurizer.cacheable, dynamic=False, options={"freezing": True})

    def prefix(images: Tensor) -> Tensor:
        nonlocal fast
        filled = torch.cat([images, images.new_zeros(_BATCH - len(images), *images.shape[1:])])
        try:
            return fast(filled)[: len(images)]
        except compile_errors() as error:
            reason = " ".join(str(error).split())[:200]
            note(f"the frozen part of the network cannot be compiled ({reason}); features are computed uncompiled")
            fast = featurizer.cacheable
            return fast(images)

    return prefix


def _build(
    folder: Path,
    dataset: Dataset,
    prefix: Callable[[Tensor], Tensor],
    loader: Loader,
    views: int,
    device: torch.device,
    progress: Callable[[int, int], None],
    lock: Lock,
) -> None:
    tasks = list(_tasks(dataset, views))
    total = num_rows(dataset, views)
    shape = prefix(torch.zeros(1, *dataset.input_shape, device=device)).shape[1:]
    dtype = torch.float32 if total * _product(shape) * 4 <= _MOST_IN_FP32 else torch.float16
    row_bytes = _product(shape) * dtype.itemsize
    _refuse_without_room(folder, total * row_bytes)
    checksums = _Checksums(row_bytes)
    whole = _keep_intact(folder, [len(task.indices) * row_bytes for [task] in tasks], checksums)
    done = sum(len(task.indices) for [task] in tasks[:whole])
    with open_own(folder / "rows", "ab") as file, open_own(folder / _BUILT, "a") as built:
        for batches in loader.stream(tasks[whole:]):
            [batch] = on_device(batches, device)
            features = prefix(batch.images).to("cpu", dtype).contiguous()
            if dtype == torch.float16 and not features.isfinite().all():
                raise InputError(
                    "features are too large for fp16, and the feature cache too large for fp32; set fewer "
                    "feature_views, freeze up to a later stage, or set data_path cached"
                )
            rows = features.numpy().tobytes()
            lock.check()  # a process that slept for minutes may have lost it
            file.write(rows)
            built.write(f"{zlib.crc32(rows)}\n")
            built.flush()
            checksums.add(rows)
            done += len(batch.images)
            progress(done, total)
        file.flush()
        os.fsync(file.fileno())
    lock.check()
    index = {"images": total // (1 + views), "rows": total, "shape": list(shape), "dtype": str(dtype).split(".")[1]}
    write_text(folder / "index.json", json.dumps({**index, "checksums": checksums.of_all()}))
    (folder / _BUILT).unlink()


class _Checksums:
    """Computes the checksums of blocks of rows from batches that pass by."""

    def __init__(self, row_bytes: int) -> None:
        self.size = _BLOCK_ROWS * row_bytes
        self.whole: list[int] = []
        self.last = self.filled = 0

    def add(self, rows: bytes) -> None:
        """Add the bytes of the next rows."""
        left = memoryview(rows)
        while left:
            room = self.size - self.filled
            part, left = left[:room], left[room:]
            self.last, self.filled = zlib.crc32(part, self.last), self.filled + len(part)
            if self.filled == self.size:
                self.whole.append(self.last)
                self.last = self.filled = 0

    def of_all(self) -> list[int]:
        """Return the checksums, also of a last block that is not full."""
        return [*self.whole, *([self.last] if self.filled else [])]


def _keep_intact(folder: Path, sizes: Sequence[int], checksums: _Checksums) -> int:
    """Return how many batches of an interrupted build are intact, and cut off what follows them.

    Args:
        sizes: of all batches, in bytes.
        checksums: gets the rows that are kept.

    """
    built: list[str] = []
    if (folder / _BUILT).is_file() and (folder / "rows").is_file():
        known = read_text(folder / _BUILT, TABLE, errors="replace").splitlines()
        with open_regular(folder / "rows", ARCHIVE) as file:
            for size, checksum in zip(sizes, known, strict=False):
                rows = file.read(size)
                if len(rows) < size or str(zlib.crc32(rows)) != checksum:
                    break
                checksums.add(rows)
                built.append(checksum)
    with open_own(folder / "rows", "ab") as file:
        file.truncate(sum(sizes[: len(built)]))
    write_text(folder / _BUILT, "".join(f"{checksum}\n" for checksum in built))
    return len(built)


def _tasks(dataset: Dataset, views: int) -> Iterator[list[Request]]:
    """Yield batches of requests: the evaluation view of all images, then every augmented view."""
    for view in (None, *range(views)):
        for env, environment in enumerate(dataset):
            for start in range(0, len(environment), _BATCH):
                indices = range(start, min(start + _BATCH, len(environment)))
                seeds = None if view is None else [seed_hash("feature view", view, env, index) for index in indices]
                yield [Request(env, indices, seeds)]


def _damage(folder: Path) -> str:
    """Return what is wrong with a cache, '' if it is intact."""
    try:
        index = _read_index(folder)
    except (FileNotFoundError, *MALFORMED):  # another process may just be repairing it
        return "has an index that cannot be read"
    file = folder / "rows"
    if not file.is_file() or file.stat().st_size != index.rows * index.row_bytes:
        return "is truncated"
    return "" if _sound(str(file), index.row_bytes, tuple(index.checksums), file.stat().st_mtime_ns) else "is damaged"


@lru_cache(maxsize=2)
def _sound(file: str, row_bytes: int, checksums: tuple[int, ...], changed: int) -> bool:
    """Return whether all checksums match; read once per process, unless the file changes."""
    found = _Checksums(row_bytes)
    with open_regular(Path(file), ARCHIVE) as rows:
        for block in iter(lambda: rows.read(_BLOCK_ROWS * row_bytes), b""):
            found.add(block)
    return tuple(found.of_all()) == checksums


def _refuse_without_room(folder: Path, needed: int) -> None:
    there = (folder / "rows").stat().st_size if (folder / "rows").exists() else 0
    free = shutil.disk_usage(folder).free
    if needed - there > free:
        raise InputError(
            f"the feature cache needs {needed / 2**30:.1f} GiB, but {folder} has {free / 2**30:.1f} GiB free; set "
            "fewer feature_views, freeze up to a later stage, or set XDG_CACHE_HOME to another disk"
        ) from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # of the disk, not of the run, which can resume


@contextmanager
def _writing(folder: Path, waiting: Callable[[], object]) -> Iterator[Lock]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder / "lock", waiting=waiting) as lock:
            yield lock
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        raise InputError(
            f"the feature cache in {folder} cannot be built ({what}); if this disk is full or read-only, free space or "
            "set XDG_CACHE_HOME to another one"
        ) from error


def _product(shape: Iterable[int]) -> int:
    product = 1
    for extent in shape:
        product *= extent
    return product
