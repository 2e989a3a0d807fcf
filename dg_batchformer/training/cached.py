"""The cached data path: decoded images from the pixel cache, augmented on the device of the run."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Self, TypeVar

import torch

from dg_batchformer.datasets.folders import ImageFolders
from dg_batchformer.datasets.pixels import Kind, open_plane, prepare_planes
from dg_batchformer.datasets.residence import RESIDENCE
from dg_batchformer.networks.compilation import compile_errors
from dg_batchformer.training import gpu_augment
from dg_batchformer.training.augment import short_side_for
from dg_batchformer.training.batch_augment import augment, draw
from dg_batchformer.training.gpu_augment import Arrays, Plan
from dg_batchformer.training.loaders import Batch, Task
from dg_batchformer.training.positions import Positions, seeds_of, split
from dg_batchformer.training.transfer import Parcel

Item = TypeVar("Item")
_ALWAYS_WHOLE = 256  # pixels: no version has shrunk images with a short side up to this


def planes_for(image_size: int) -> tuple[Kind, Kind]:
    """Return the planes for evaluation and training at an image size."""
    return Kind(image_size, squared=True), Kind(short_side_for(image_size), squared=False)


class CachedLoader:
    """A ``Loader`` on the pixel cache: plain images as uint8, augmented ones on the device and normalized.

    Args:
        augments: whether requests may ask for augmentation; if not, the training plane is not needed.
        note: called with a message on every repaired image, and if the augmentation cannot be compiled.
        progress: called with (images done, total) while the cache is built.

    Attributes:
        compiles: whether augmentation on a GPU is compiled.

    """

    def __init__(
        self,
        dataset: ImageFolders,
        device: torch.device,
        *,
        augments: bool,
        note: Callable[[str], None],
        progress: Callable[[int, int], None],
    ) -> None:
        self.device = device
        self.size = dataset.input_shape[-1]
        self.positions = Positions(dataset)
        self.note = note
        self.compiles = False
        self._thread = ThreadPoolExecutor(1, initializer=_use, initargs=(device,))
        kinds = planes_for(self.size)[: 2 if augments else 1]
        files = tuple(dataset.files)
        folders = prepare_planes(dataset, kinds, progress)
        self.planes = [open_plane(kind, folder, files) for kind, folder in zip(kinds, folders, strict=True)]
        RESIDENCE.hold(self.planes, device)
        for sentence in self.planes[0].notes:
            note(sentence)

    @property
    def conditions(self) -> dict[str, Any]:
        """Conditions for records: the short side that large training images are shrunk to, if there are any."""
        if len(self.planes) < 2 or bool((self.planes[1].sizes.amin(dim=1) <= _ALWAYS_WHOLE).all()):
            return {}
        return {"training_short_side": self.planes[1].kind.side}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def stream(self, tasks: Iterable[Task]) -> Iterator[list[Batch]]:
        """Yield the batches of every task, in order; for a GPU, the host prepares the next one in the meantime."""
        on_gpu = self.device.type != "cpu"
        for batches in self._on_gpu(iter(tasks)) if on_gpu else map(self._on_cpu, tasks):
            self._say_restored()
            yield batches

    def _on_cpu(self, task: Task) -> list[Batch]:
        rows, labels = self.positions.of(task)
        if (seeds := seeds_of(task)) is None:
            images = self.planes[0].images(rows.tolist())
        else:
            whole = self.planes[1]
            pixels = [whole.image(row) for row in rows.tolist()]
            images = augment(pixels, draw(seeds, whole.sizes[rows]), self.size)
        return split(task, images, labels)

    def _on_gpu(self, tasks: Iterator[Task]) -> Iterator[list[Batch]]:
        for ready in one_ahead(map(self._prepare, tasks), self._thread):
            labels, begins, pixels, *arrays = ready.parcel.unpack()
            pixels = pixels if ready.resident is None else ready.resident
            if ready.planned is None:
                images = _gather(pixels, begins, self.size)
            else:
                images = self._augmented(pixels, ready.planned, Arrays(*arrays))
            yield split(ready.task, images, labels)

    def _augmented(self, pixels: torch.Tensor, planned: Plan, arrays: Arrays) -> torch.Tensor:
        """Augment images on the GPU, uncompiled from now on if that cannot be compiled."""
        try:
            return gpu_augment.augment(pixels, planned, arrays, self.size, compiles=self.compiles)
        except compile_errors():
            self.compiles = False
            self.note("the augmentation cannot be compiled here")
            return gpu_augment.augment(pixels, planned, arrays, self.size)

    def _prepare(self, task: Task) -> "_Ready":
        """Do the host's part of a task: read pixels that are not on the GPU, and draw parameters."""
        rows, labels = self.positions.of(task)
        seeds = seeds_of(task)
        plane = self.planes[0 if seeds is None else 1]
        sizes, begins, pixels = plane.sizes[rows], plane.begins[rows], torch.empty(0, dtype=torch.uint8)
        if plane.resident is None:
            pixels = plane.read(rows.tolist())
            extents = 3 * sizes.prod(dim=1)
            begins = extents.cumsum(0) - extents
        planned = None if seeds is None else gpu_augment.plan(draw(seeds, sizes), begins, sizes[:, 1])
        arrays = () if planned is None else planned.arrays
        return _Ready(task, Parcel([labels, begins, pixels, *arrays], self.device), plane.resident, planned)

    def _say_restored(self) -> None:
        for plane in self.planes:
            while plane.restored:
                file = plane.files[plane.restored.pop()]
                self.note(f"{file} was damaged in the pixel cache {plane.folder} and has been decoded again")


class _Ready(NamedTuple):
    """A task whose host part is done.

    Attributes:
        parcel: labels, positions of the first bytes of images, their pixels unless resident, and arrays of the plan.
        resident: all pixels of the plane, if they are on the device.
        planned: None for plain images.

    """

    task: Task
    parcel: Parcel
    resident: torch.Tensor | None
    planned: Plan | None


def one_ahead(items: Iterator[Item], thread: ThreadPoolExecutor) -> Iterator[Item]:
    """Yield the items of an iterator, which another thread advances while the caller uses the item before."""
    ahead = thread.submit(next, items, None)
    while (item := ahead.result()) is not None:
        ahead = thread.submit(next, items, None)
        yield item


def _use(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_device(device)  # pinned memory belongs to the thread's device


def _gather(pixels: torch.Tensor, begins: torch.Tensor, size: int) -> torch.Tensor:
    """Return square images by the positions of their first bytes: uint8 (n, 3, size, size)."""
    images = pixels.view(-1, size, size, 3)
    return images[begins // images[:1].numel()].permute(0, 3, 1, 2)
