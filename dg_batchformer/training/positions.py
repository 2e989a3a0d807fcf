"""Positions of requested images in a cache that holds all environments, one after the other."""

from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from dg_batchformer.datasets import Dataset
from dg_batchformer.training.loaders import Batch, Task


class Positions:
    """Finds the images of tasks in a cache."""

    def __init__(self, dataset: Dataset) -> None:
        self.labels = torch.tensor([label for environment in dataset for label in environment.labels])
        self.starts = [0, *accumulate(len(environment) for environment in dataset)]

    def of(self, task: Task) -> tuple[Tensor, Tensor]:
        """Return the positions of all requested images, and their labels, (n,) each."""
        starts = [(self.starts[request.env], request.indices) for request in task]
        positions = whole_numbers([start + index for start, indices in starts for index in indices])
        return positions, self.labels.index_select(0, positions)


def whole_numbers(values: list[int]) -> Tensor:
    """Return a list as a tensor, (n,) of int64; ``torch.tensor`` takes several times as long."""
    return torch.from_numpy(np.array(values, dtype=np.int64))


def seeds_of(task: Task) -> list[int] | None:
    """Return the augmentation seeds of all images of a task; None if they stay plain."""
    seeds = [request.seeds for request in task if request.seeds is not None]
    return [seed for some in seeds for seed in some] if seeds else None


def split(task: Task, images: Tensor, labels: Tensor) -> list[Batch]:
    """Split images and labels by request."""
    lengths = [len(request.indices) for request in task]
    return [Batch(*pair) for pair in zip(images.split(lengths), labels.split(lengths), strict=True)]
