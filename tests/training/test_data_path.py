"""Transforms and loaders, compared with torchvision and Pillow."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image
from torch.testing import assert_close
from torchvision import transforms

from dg_batchformer.datasets import get_dataset_class
from dg_batchformer.errors import InputError
from dg_batchformer.storage.processes import process_start
from dg_batchformer.training import loaders
from dg_batchformer.training.augment import Transform, normalise
from dg_batchformer.training.loaders import ExactLoader, Request


def _image():
    return Image.effect_noise((60, 40), 80).convert("RGB")


def test_unaugmented_images_equal_domainbeds_bit_for_bit():
    image = _image()
    theirs = transforms.Compose(
        [
            transforms.Resize((24, 24)),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )

    assert_close(normalise(Transform(24)(image, None)[None])[0], theirs(image), rtol=0, atol=0)


def test_augmentation_depends_on_the_seed_alone_and_leaves_the_generator_alone():
    image, transform = _image(), Transform(24)
    before = torch.get_rng_state()

    first, again, other = transform(image, 5), transform(image, 5), transform(image, 6)

    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_inputs_that_need_no_normalisation_get_none():
    vectors = torch.randn(3, 8)
    assert normalise(vectors) is vectors
    grey = torch.full((1, 1, 2, 2), 255, dtype=torch.uint8)
    assert_close(normalise(grey), torch.ones(1, 1, 2, 2))


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_the_order_of_batches_does_not_depend_on_the_number_of_workers(image_folder, workers):
    dataset = get_dataset_class("PACS")(image_folder(), [0], {"image_size": 16})
    tasks = [[Request(env, [step % 10, 3], [step, 7]) for env in (0, 2)] for step in range(20)]
    notes = []

    with ExactLoader(dataset.environments, 16, workers, notes.append) as loader:
        training, evaluation = loader.stream(tasks), loader.stream([[Request(3, range(10))]] * 3)
        loaded = []
        for step, task in enumerate(training):
            loaded.append(task)
            if step % 7 == 0:
                assert next(evaluation)[0].images.shape == (10, 3, 16, 16)

    alone = Transform(16)
    for task, batches in zip(tasks, loaded, strict=True):
        for request, batch in zip(task, batches, strict=True):
            images, _ = dataset[request.env].load(request.indices)
            expected = torch.stack([alone(image, seed) for image, seed in zip(images, request.seeds, strict=True)])
            assert_close(batch.images, expected)
            assert batch.labels.tolist() == [dataset[request.env].labels[index] for index in request.indices]
    assert notes == []


def test_batches_that_shared_memory_has_no_room_for_come_through_pipes_and_a_note_says_so(image_folder, monkeypatch):
    dataset = get_dataset_class("PACS")(image_folder(), [0], {"image_size": 16})
    tasks, notes = [[Request(0, [step, 3, 7])] for step in range(6)], []
    with ExactLoader(dataset.environments, 16, 0, notes.append) as loader:
        expected = [batch for [batch] in loader.stream(tasks)]

    monkeypatch.setattr(loaders.SHARED_MEMORY, "free", lambda: 2 * 3 * (3 * 16**2))  # for one batch at a time
    with ExactLoader(dataset.environments, 16, 2, notes.append) as loader:
        small = [batch for [batch] in loader.stream(tasks)]
        assert notes == []
    monkeypatch.setattr(loaders.SHARED_MEMORY, "free", lambda: 64)
    with ExactLoader(dataset.environments, 16, 2, notes.append) as loader:
        large = [batch for [batch] in loader.stream(tasks)]

    for one, other, wanted in zip(small, large, expected, strict=True):
        assert torch.equal(one.images, wanted.images)
        assert torch.equal(other.images, wanted.images)
        assert torch.equal(other.labels, wanted.labels)
    [note] = notes
    assert note.startswith("/dev/shm has space for 0 MiB of images: larger batches use pipes, which are slower; in")


def test_a_repaired_image_is_noted_once_and_a_broken_one_raises(image_folder):
    root = image_folder()
    file = root / "PACS" / "photo" / "dog" / "0.png"
    file.write_bytes(file.read_bytes()[:-200])
    dataset = get_dataset_class("PACS")(root, [0], {"image_size": 16})
    notes = []

    with ExactLoader(dataset.environments, 16, 1, notes.append) as loader:
        list(loader.stream([[Request(2, [0])]] * 3))
        assert notes == [f"{file} is truncated; the decodable part is used"]

        file.write_bytes(b"")
        with pytest.raises(InputError, match=f"{file} cannot be decoded"):
            list(loader.stream([[Request(2, [0])]]))


def test_workers_end_when_their_parent_is_killed(image_folder):
    code = f"""
import time
from pathlib import Path
from dg_batchformer.datasets import get_dataset_class
from dg_batchformer.training.loaders import ExactLoader
dataset = get_dataset_class("PACS")(Path({str(image_folder())!r}), [0], {{"image_size": 16}})
with ExactLoader(dataset.environments, 16, 2, print) as loader:
    print(*loader._pool._processes, flush=True)
    time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    deadline = time.monotonic() + 20

    while any(process_start(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert len(workers) == 2
    assert not [pid for pid in workers if process_start(pid)]
    assert os.getpid() not in workers
