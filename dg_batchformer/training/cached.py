"""The cached data path: decoded images from the pixel cache, augmented on the device of the run."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, Self

import torch

from dg_batchformer.datasets.folders import ImageFolders
from dg_batchformer.datasets.pixels import Kind, open_plane, prepare_planes
from dg_batchformer.datasets.residence import RESIDENCE
from dg_batchformer.training.augment import short_side_for
from dg_batchformer.training.batch_augment import augment, draw
from dg_batchformer.training.loaders import Batch, Request, Task

_ALWAYS_WHOLE = 256  # pixels: no version has shrunk images with a short side up to this


def planes_for(image_size: int) -> tuple[Kind, Kind]:
    """Return the planes for evaluation and training at an image size."""
    return Kind(image_size, squared=True), Kind(short_side_for(image_size), squared=False)


class CachedLoader:
    """A ``Loader`` on the pixel cache: plain images as uint8, augmented ones on the device and normalized.

    Args:
        augments: whether requests may ask for augmentation; if not, the training plane is not needed.
        note: called with a message on every repaired image.
        progress: called with (images done, total) while the cache is built.

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
        self.labels = [torch.tensor(environment.labels) for environment in dataset]
        self.starts = [0, *accumulate(len(environment) for environment in dataset)]
        self.note = note
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
        pass

    def stream(self, tasks: Iterable[Task]) -> Iterator[list[Batch]]:
        """Yield the batches of every task, in order."""
        for task in tasks:
            yield [self._batch(request) for request in task]
            self._say_restored()

    def _batch(self, request: Request) -> Batch:
        rows = [self.starts[request.env] + index for index in request.indices]
        labels = self.labels[request.env][list(request.indices)]
        if request.seeds is None:
            return Batch(self.planes[0].images(rows), labels)
        return Batch(self._augmented(rows, request.seeds), labels)

    def _augmented(self, rows: Sequence[int], seeds: Sequence[int]) -> torch.Tensor:
        whole = self.planes[1]
        images = [whole.image(row).to(self.device, non_blocking=True) for row in rows]
        return augment(images, draw(seeds, whole.sizes[list(rows)]), self.size)

    def _say_restored(self) -> None:
        for plane in self.planes:
            while plane.restored:
                file = plane.files[plane.restored.pop()]
                self.note(f"{file} was damaged in the pixel cache {plane.folder} and has been decoded again")
