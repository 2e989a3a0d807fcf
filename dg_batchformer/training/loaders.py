"""The exact data path: one pool of worker processes for training and evaluation, with results in request order."""

import os
import pickle
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor
from torch import multiprocessing as torch_multiprocessing

from dg_batchformer.datasets import Environment
from dg_batchformer.datasets.base import TensorEnvironment
from dg_batchformer.runtime.parallel import begin_child
from dg_batchformer.training.augment import Transform, normalise
from dg_batchformer.training.transfer import transfer


class Request(NamedTuple):
    """A request for images of one environment; ``seeds`` (one per index) requests augmentation."""

    env: int
    indices: Sequence[int]
    seeds: Sequence[int] | None = None


class Batch(NamedTuple):
    """The response to a request: images (N, ...), labels (N,)."""

    images: Tensor
    labels: Tensor


Task = Sequence[Request]  # loaded together, as the minibatches of one step; all requests or none have seeds
_Result = tuple[list[Batch], list[str]]
_Load = Callable[[Task], _Result | bytes]
_SHARED = "/dev/shm"


class Loader(Protocol):
    """Interface of data loaders: ``ExactLoader``, ``CachedLoader``, ``FeatureLoader``."""

    @property
    def conditions(self) -> dict[str, Any]:
        """Conditions that results depend on besides the spec, for records."""
        ...

    def stream(self, tasks: Iterable[Task]) -> Iterator[list[Batch]]:
        """Yield the batches of every task, in order."""
        ...


def on_device(batches: Sequence[Batch], device: torch.device) -> list[Batch]:
    """Copy batches to a device together, unless they are there, and normalize their images."""
    if any(batch.images.device.type != device.type for batch in batches):
        there = transfer([tensor for batch in batches for tensor in batch], device)
        batches = [Batch(*pair) for pair in zip(there[::2], there[1::2], strict=True)]
    return [Batch(normalise(images), labels) for images, labels in batches]


class ExactLoader:
    """A ``Loader`` that prefetches tasks in worker processes; a context manager that stops them.

    A response depends only on its request, not on the number or timing of workers. Workers return images in shared
    memory if it is large enough; larger batches go through pipes, which is slower.

    Args:
        environments: by env index.
        image_size: height and width in pixels, for environments of Pillow images.
        workers: number of processes; 0 loads in this process, as do environments in memory.
        note: called once with each message on a repaired image.

    """

    def __init__(
        self, environments: Sequence[Environment], image_size: int, workers: int, note: Callable[[str], None]
    ) -> None:
        self._note, self._noted = note, set[str]()
        self._load = _LoadTask(environments, Transform(image_size))
        self._image_bytes = 3 * image_size**2
        self._room = SHARED_MEMORY.free() // 2  # bytes per stream: one for training, one for evaluation
        in_memory = all(isinstance(environment, TensorEnvironment) for environment in environments)
        self._ahead = 0 if in_memory else 2 * workers
        self._pool: ProcessPoolExecutor | None = None
        if self._ahead:
            # Fork, so that workers start fast and share the file lists. The first task forks all workers, so submit
            # one now, while few other threads could hold a lock.
            context = torch_multiprocessing.get_context("fork")
            self._pool = ProcessPoolExecutor(workers, context, _begin_worker, (self._load, os.getpid()))
            self._pool.submit(os.getpid).result()

    @property
    def conditions(self) -> dict[str, Any]:
        """None: images are used unchanged."""
        return {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def stream(self, tasks: Iterable[Task]) -> Iterator[list[Batch]]:
        """Yield the batches of every task, one per request, in order.

        Tasks are taken only as far ahead as they are loaded, so they may be endless. Several streams may take turns.

        Raises InputError for an image that cannot be loaded, RuntimeError when a worker process dies.
        """
        for batches, notes in self._loaded(tasks):
            for sentence in sorted(set(notes) - self._noted):
                self._note(sentence)
            self._noted.update(notes)
            yield batches

    def _loaded(self, tasks: Iterable[Task]) -> Iterator[_Result]:
        if self._pool is None:
            yield from map(self._load, tasks)
            return
        pending: deque[_Ahead] = deque()
        try:
            for task in tasks:
                size = self._image_bytes * sum(len(request.indices) for request in task)
                while pending and sum(ahead.size for ahead in pending) + size > self._room:
                    yield self._result(pending.popleft())
                load: _Load = _load_in_worker if size <= self._room else _load_into_pipe
                pending.append(_Ahead(size, self._pool.submit(load, task)))
                if len(pending) > self._ahead:
                    yield self._result(pending.popleft())
            while pending:
                yield self._result(pending.popleft())
        except BrokenProcessPool:
            raise RuntimeError(
                "a data worker died, perhaps out of memory or of space in /dev/shm; use fewer or smaller images"
            ) from None
        finally:
            for ahead in pending:
                ahead.future.cancel()

    def _result(self, ahead: "_Ahead") -> _Result:
        result = ahead.future.result()
        if not isinstance(result, bytes):
            return result
        batches, notes = pickle.loads(result)
        tight = f"{_SHARED} has space for {self._room >> 20} MiB of images: larger batches use pipes, which are slower"
        return batches, [*notes, f"{tight}; in Docker use --shm-size=2g, or use --data_path cached"]


class _Ahead(NamedTuple):
    """A prefetched task, and the size of its images in bytes."""

    size: int
    future: Future[_Result | bytes]


class SharedMemory:
    """The shared memory of this machine.

    Attributes:
        workers: number of processes that train beside each other, including this one; each takes its share.

    """

    workers = 1

    def free(self) -> int:
        """Return how many bytes this process may take; ``sys.maxsize`` if there is no limit."""
        try:
            return shutil.disk_usage(_SHARED).free // self.workers
        except OSError:
            return sys.maxsize


SHARED_MEMORY = SharedMemory()
"""The shared memory that this process may take."""


class _LoadTask:
    def __init__(self, environments: Sequence[Environment], transform: Transform) -> None:
        self.environments = environments
        self.transform = transform

    def __call__(self, task: Task) -> _Result:
        loaded = [self._batch(request) for request in task]
        return [batch for batch, _ in loaded], [sentence for _, notes in loaded for sentence in notes]

    def _batch(self, request: Request) -> tuple[Batch, list[str]]:
        environment = self.environments[request.env]
        images, notes = environment.load(request.indices)
        if not isinstance(images, Tensor):
            seeds: Sequence[int | None] = request.seeds or [None] * len(images)
            images = torch.stack([self.transform(image, seed) for image, seed in zip(images, seeds, strict=True)])
        labels = torch.tensor([environment.labels[index] for index in request.indices])
        return Batch(images, labels), notes


_worker_load: _LoadTask | None = None  # of the worker process


def _begin_worker(load: _LoadTask, parent: int) -> None:
    global _worker_load
    _worker_load = load
    torch.set_num_threads(1)
    begin_child(parent)


def _load_in_worker(task: Task) -> _Result:
    assert _worker_load is not None
    return _worker_load(task)


def _load_into_pipe(task: Task) -> bytes:
    return pickle.dumps(_load_in_worker(task))  # plain pickle does not use shared memory
