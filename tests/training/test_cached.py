"""The cached data path: the GPU's way of loading, run on the CPU, gives the images of the CPU's way."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch

from dg_batchformer.datasets import get_dataset_class
from dg_batchformer.training.cached import CachedLoader, one_ahead
from dg_batchformer.training.loaders import Batch, Request, on_device

CPU = torch.device("cpu")


@pytest.fixture
def loader(image_folder):
    dataset = get_dataset_class("PACS")(image_folder(), [0], {"image_size": 16})
    with CachedLoader(dataset, CPU, augments=True, note=print, progress=lambda done, total: None) as loader:
        yield loader


@pytest.mark.parametrize("resident", [True, False])
def test_gpus_load_the_images_and_labels_that_cpus_load(loader, resident):
    plain = [[Request(env, [3, 0, 3, 9])] for env in (2, 0)] + [[Request(3, range(10))]]
    augmented = [[Request(env, [step, 7], [step, env]) for env in (0, 2, 3)] for step in range(4)]
    expected = list(loader.stream(plain)), list(loader.stream(augmented))
    if resident:
        for plane in loader.planes:
            plane.copy_to(CPU)

    loaded = list(loader._on_gpu(iter(plain))), list(loader._on_gpu(iter(augmented)))

    for ours, theirs, tolerance in zip(loaded, expected, (0, 0.6), strict=True):
        for batches, wanted in zip(ours, theirs, strict=True):
            assert [batch.labels.tolist() for batch in batches] == [batch.labels.tolist() for batch in wanted]
            for batch, one in zip(batches, wanted, strict=True):
                assert batch.images.dtype == one.images.dtype
                difference = (batch.images.float() - one.images.float()).abs().mean()
                assert difference <= tolerance / (0.225 * 255)  # CPUs round resized crops to bytes


def test_augmentation_that_cannot_be_compiled_continues_uncompiled_and_says_so(loader, monkeypatch, forget_compiled):
    def fails(graph, inputs):
        raise RuntimeError("no compiler")

    task = [[Request(0, [3, 7], [1, 2])]]
    [[expected]] = loader._on_gpu(iter(task))
    notes = []
    loader.note, loader.compiles = notes.append, True
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=fails))

    [[found]] = loader._on_gpu(iter(task))

    assert torch.equal(found.images, expected.images)
    assert notes == ["the augmentation cannot be compiled here"]
    assert not loader.compiles


def test_another_thread_prepares_one_item_while_the_caller_uses_the_one_before():
    taken = []

    def numbers():
        for number in range(4):
            taken.append(number)
            yield number

    with ThreadPoolExecutor(1) as thread:
        used = []
        for number in one_ahead(numbers(), thread):
            thread.submit(int).result()  # let the thread finish
            used.append((number, list(taken)))

    assert used == [(0, [0, 1]), (1, [0, 1, 2]), (2, [0, 1, 2, 3]), (3, [0, 1, 2, 3])]


def test_an_error_of_the_other_thread_reaches_the_caller():
    def fails():
        yield 0
        raise OSError("disk")

    with ThreadPoolExecutor(1) as thread, pytest.raises(OSError, match="disk"):
        list(one_ahead(fails(), thread))


def test_batches_of_the_host_arrive_together_and_normalized():
    batches = [Batch(torch.full((2, 3, 4, 4), 255, dtype=torch.uint8), torch.arange(2)) for _ in range(3)]

    arrived = on_device(batches, torch.device("meta"))

    assert [(batch.images.shape, batch.labels.shape) for batch in arrived] == [((2, 3, 4, 4), (2,))] * 3
    assert {tensor.device.type for batch in arrived for tensor in batch} == {"meta"}
    assert arrived[0].images.dtype == torch.float32
