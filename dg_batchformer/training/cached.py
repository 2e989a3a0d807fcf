"""The cached data path: images come decoded from the pixel cache and are augmented on the device of the run."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Self

import torch

from dg_batchformer.datasets.folders import ImageFolders
from dg_batchformer.datasets.pixels import open_plane, prepare_planes
from dg_batchformer.training.batch_augment import augment, draw
from dg_batchformer.training.loaders import Batch, Request, Task


class CachedLoader:
    """Serves what ``loaders.Loader`` serves, on a device: plain images as bytes, augmented ones ready for a network.

    Args:
        augments: whether some request asks for augmentation; without, the training plane is not needed.
        note: takes a sentence on an image that was repaired.
        progress: takes images done, of how many, while the cache is built.

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
        squared, *whole = prepare_planes(dataset, [self.size, *([None] if augments else [])], progress)
        self.squared = open_plane(squared, device)
        self.whole = open_plane(whole[0], device) if augments else None
        for sentence in self.squared.notes:
            note(sentence)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def stream(self, tasks: Iterable[Task]) -> Iterator[list[Batch]]:
        """Yield the batches of every task, in order."""
        for task in tasks:
            yield [self._batch(request) for request in task]

    def _batch(self, request: Request) -> Batch:
        rows = [self.starts[request.env] + index for index in request.indices]
        labels = self.labels[request.env][list(request.indices)]
        if request.seeds is None:
            return Batch(self.squared.images(rows), labels)
        return Batch(self._augmented(rows, request.seeds), labels)

    def _augmented(self, rows: Sequence[int], seeds: Sequence[int]) -> torch.Tensor:
        assert self.whole is not None
        images = [self.whole.image(row).to(self.device, non_blocking=True) for row in rows]
        return augment(images, draw(seeds, self.whole.sizes[list(rows)]), self.size)
