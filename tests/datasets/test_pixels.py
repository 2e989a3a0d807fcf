"""The pixel cache: exact where it promises to be, built once, atomically, and again when the data change."""

import errno
import os
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from dg_batchformer.datasets import get_dataset_class, pixels
from dg_batchformer.datasets.decoding import decode
from dg_batchformer.errors import InputError

CPU = torch.device("cpu")


@pytest.fixture
def root(image_folder, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = image_folder(n=3)
    Image.effect_noise((500, 300), 80).convert("RGB").save(root / "PACS" / "photo" / "dog" / "large.png")
    return root


def _pacs(root):
    return get_dataset_class("PACS")(root, [0], {"image_size": 32})


def _open(dataset, size, progress=lambda done, images: None):
    [plane] = pixels.prepare_planes(dataset, [size], progress)
    return pixels.open_plane(plane, CPU)


def test_the_squared_plane_is_what_is_evaluated_without_a_cache(root):
    dataset = _pacs(root)
    plane = _open(dataset, 32)

    resized = [np.array(decode(file)[0].resize((32, 32), Image.Resampling.BILINEAR)) for file in dataset.files]

    assert torch.equal(plane.images(range(len(dataset.files))), torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2))


def test_the_training_plane_keeps_small_images_as_they_are_and_the_aspect_of_large_ones(root):
    dataset = _pacs(root)
    plane = _open(dataset, None)

    for index, file in enumerate(dataset.files):
        whole = np.array(decode(file)[0])
        if file.name == "large.png":
            assert plane.image(index).shape == (3, 256, 426)
        else:
            assert torch.equal(plane.image(index).permute(1, 2, 0), torch.from_numpy(whole))


def test_a_plane_on_a_device_gives_the_same_images_as_its_file(root):
    dataset = _pacs(root)
    for size in (32, None):
        plane = _open(dataset, size)
        content = torch.frombuffer(bytearray(plane.file.read_bytes()), dtype=torch.uint8)
        resident = pixels.Plane(plane.file, plane.sizes, plane.notes, content)

        assert all(torch.equal(plane.image(index), resident.image(index)) for index in range(len(dataset.files)))
        if size is not None:
            assert torch.equal(plane.images([5, 0, 5]), resident.images([5, 0, 5]))


def test_a_plane_that_is_cut_short_says_so(root):
    dataset = _pacs(root)
    plane = _open(dataset, 32)
    plane.file.write_bytes(plane.file.read_bytes()[:-1])

    with pytest.raises(InputError, match=r"pixels is cut short; delete .*eval-32, then it is built again"):
        plane.image(len(dataset.files) - 1)


def test_it_is_built_once_and_again_when_the_data_change(root):
    built = []
    for _ in range(2):
        _open(_pacs(root), 32, lambda done, images: built.append(done))
    assert built == list(range(1, 26))

    (root / "PACS" / "photo" / "dog" / "large.png").unlink()
    _open(_pacs(root), 32, lambda done, images: built.append(done))
    assert built == [*range(1, 26), *range(1, 25)]


def test_files_renamed_into_another_order_are_another_cache(root):
    folder = root / "PACS" / "photo" / "dog"
    _open(_pacs(root), None)
    (folder / "0.png").rename(folder / "9.png")

    dataset = _pacs(root)
    after = _open(dataset, None)

    assert [file.name for file in dataset.files[12:16]] == ["1.png", "2.png", "9.png", "large.png"]
    for index in (12, 13, 14):
        image = np.array(decode(dataset.files[index])[0])
        assert torch.equal(after.image(index).permute(1, 2, 0), torch.from_numpy(image))


def test_two_at_once_build_it_once(root):
    built, datasets = [], [_pacs(root) for _ in range(2)]
    threads = [
        threading.Thread(target=_open, args=(dataset, 32, lambda done, images: built.append(done)))
        for dataset in datasets
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert built == list(range(1, 26))


def test_a_truncated_image_gives_what_is_there_and_is_noted(root):
    torn = root / "PACS" / "photo" / "dog" / "torn.jpg"
    Image.effect_noise((64, 64), 100).convert("RGB").save(torn)
    torn.write_bytes(torn.read_bytes()[:-400])

    plane = _open(_pacs(root), 32)

    assert plane.notes == [f"{torn} is truncated; what is there was used"]


def test_an_image_that_cannot_be_decoded_is_named_and_nothing_is_left(root, tmp_path):
    broken = root / "PACS" / "photo" / "dog" / "broken.jpg"
    broken.write_bytes(b"text")

    with pytest.raises(InputError, match=f"{broken} cannot be decoded"):
        _open(_pacs(root), 32)

    assert not list((tmp_path / "cache").rglob("*eval*"))


def test_a_full_disk_is_said_with_the_way_out_and_nothing_is_left(root, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)

    with pytest.raises(InputError, match=r"No space left on device.*make room.*or give --data_path exact"):
        _open(_pacs(root), 32)

    assert not list((tmp_path / "cache").rglob("*eval*"))


def test_what_a_killed_build_left_is_cleared_away(root, tmp_path):
    dataset = _pacs(root)
    left_over = tmp_path / "cache" / "dg_batchformer" / "pixels" / dataset.identity().arrangement[:16] / ".eval-32.dead"
    left_over.mkdir(parents=True)

    _open(dataset, 32)

    assert not left_over.exists()
