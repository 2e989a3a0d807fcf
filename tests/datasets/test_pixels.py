"""The pixel cache: exact where documented, built once and atomically, and rebuilt when the data change."""

import errno
import os
import shutil
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from dg_batchformer.datasets import get_dataset_class, pixels
from dg_batchformer.datasets.decoding import decode
from dg_batchformer.errors import InputError

CPU = torch.device("cpu")
SQUARED, WHOLE = pixels.Kind(32, squared=True), pixels.Kind(256, squared=False)


@pytest.fixture
def root(image_folder, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = image_folder(n=3)
    Image.effect_noise((500, 300), 80).convert("RGB").save(root / "PACS" / "photo" / "dog" / "large.png")
    return root


def _pacs(root):
    return get_dataset_class("PACS")(root, [0], {"image_size": 32})


def _open(dataset, kind, progress=lambda done, images: None):
    [folder] = pixels.prepare_planes(dataset, [kind], progress)
    return pixels.Plane(kind, folder, dataset.files)


def test_the_squared_plane_is_what_is_evaluated_without_a_cache(root):
    dataset = _pacs(root)
    plane = _open(dataset, SQUARED)

    resized = [np.array(decode(file)[0].resize((32, 32), Image.Resampling.BILINEAR)) for file in dataset.files]

    assert torch.equal(plane.images(range(len(dataset.files))), torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2))


def test_the_training_plane_keeps_small_images_as_they_are_and_the_aspect_of_large_ones(root):
    dataset = _pacs(root)
    plane = _open(dataset, WHOLE)

    for index, file in enumerate(dataset.files):
        whole = np.array(decode(file)[0])
        if file.name == "large.png":
            assert plane.image(index).shape == (3, 256, 426)
        else:
            assert torch.equal(plane.image(index).permute(1, 2, 0), torch.from_numpy(whole))


def test_a_plane_on_a_device_gives_the_same_images_as_its_file(root):
    dataset = _pacs(root)
    for kind in (SQUARED, WHOLE):
        plane, resident = _open(dataset, kind), _open(dataset, kind)
        resident.copy_to(CPU)

        assert resident.resident is not None
        assert all(torch.equal(plane.image(index), resident.image(index)) for index in range(len(dataset.files)))
        begin = plane.begins[5]
        assert torch.equal(plane.read([5, 0])[: plane.sizes[5].prod() * 3], resident.resident[begin : plane.begins[6]])


def _flip(file, place):
    content = bytearray(file.read_bytes())
    content[place] ^= 16
    file.write_bytes(content)


@pytest.mark.parametrize("kind", [SQUARED, WHOLE], ids=["squared", "whole"])
@pytest.mark.parametrize("resident", [False, True])
def test_a_flipped_bit_of_a_cached_image_is_detected_and_repaired(root, kind, resident):
    dataset = _pacs(root)
    expected = [image.clone() for image in map(_open(dataset, kind).image, range(len(dataset.files)))]
    plane = _open(dataset, kind)
    _flip(plane.folder / "pixels", 10)

    if resident:
        plane.copy_to(CPU)
    assert all(torch.equal(plane.image(index), image) for index, image in enumerate(expected))

    assert plane.restored == [0]
    again = _open(dataset, kind)
    assert torch.equal(again.image(0), expected[0])
    assert again.restored == []


def test_threads_that_share_a_read_keep_the_order_and_repair_what_is_damaged(root):
    dataset = _pacs(root)
    plane, order = _open(dataset, WHOLE), [5, 0, 3, 0, 11, 7]
    expected = torch.cat([plane.read([index]) for index in order])
    _flip(plane.folder / "pixels", 10)

    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        read = plane.read(order)
    finally:
        torch.set_num_threads(threads)

    assert torch.equal(read, expected)
    assert set(plane.restored) == {0}


def test_an_image_that_is_damaged_in_the_cache_and_changed_on_disk_is_named(root):
    dataset = _pacs(root)
    plane = _open(dataset, SQUARED)
    _flip(plane.folder / "pixels", 10)
    Image.new("RGB", (40, 30)).save(dataset.files[0])

    with pytest.raises(InputError, match=rf"{plane.folder} is damaged, and {dataset.files[0]} changed since"):
        plane.image(0)


@pytest.mark.parametrize("damage", ["flip", "cut pixels", "cut index", "former version", "nothing in it"])
def test_a_plane_that_is_damaged_or_of_an_earlier_version_is_built_again(root, damage):
    dataset, built = _pacs(root), []
    expected = [image.clone() for image in map(_open(dataset, SQUARED).image, range(len(dataset.files)))]
    folder = _open(dataset, SQUARED).folder
    index, stored = folder / "index.npz", folder / "pixels"
    if damage == "flip":
        _flip(index, index.stat().st_size // 3)
    elif damage == "cut pixels":
        stored.write_bytes(stored.read_bytes()[:-1])
    elif damage == "cut index":
        index.write_bytes(index.read_bytes()[:100])
    elif damage == "former version":
        index.rename(folder / "sizes.npy")
    else:
        index.unlink()
        stored.unlink()

    plane = _open(dataset, SQUARED, lambda done, images: built.append(done))

    assert len(built) == len(dataset.files)
    assert all(torch.equal(plane.image(index), image) for index, image in enumerate(expected))


def test_images_that_change_while_they_are_decoded_are_not_cached(root, tmp_path):
    dataset, large = _pacs(root), root / "PACS" / "photo" / "dog" / "large.png"

    def progress(done, images):
        if done == images:
            os.utime(large, (0, 0))

    with pytest.raises(InputError, match=r"images of PACS changed while they were read; run the same command again"):
        _open(dataset, SQUARED, progress)

    assert not list((tmp_path / "cache").rglob("pixels/*/*eval*"))


def test_it_is_built_once_and_rebuilt_when_the_data_change(root):
    built = []
    for _ in range(2):
        _open(_pacs(root), SQUARED, lambda done, images: built.append(done))
    assert built == list(range(1, 26))

    (root / "PACS" / "photo" / "dog" / "large.png").unlink()
    _open(_pacs(root), SQUARED, lambda done, images: built.append(done))
    assert built == [*range(1, 26), *range(1, 25)]


def test_files_renamed_into_another_order_are_another_cache(root):
    folder = root / "PACS" / "photo" / "dog"
    _open(_pacs(root), WHOLE)
    (folder / "0.png").rename(folder / "9.png")

    dataset = _pacs(root)
    after = _open(dataset, WHOLE)

    assert [file.name for file in dataset.files[12:16]] == ["1.png", "2.png", "9.png", "large.png"]
    for index in (12, 13, 14):
        image = np.array(decode(dataset.files[index])[0])
        assert torch.equal(after.image(index).permute(1, 2, 0), torch.from_numpy(image))


def test_two_processes_build_it_once(root):
    built, datasets = [], [_pacs(root) for _ in range(2)]
    threads = [
        threading.Thread(target=_open, args=(dataset, SQUARED, lambda done, images: built.append(done)))
        for dataset in datasets
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [done for done in built if done] == list(range(1, 26))  # 0 while the second waits


def test_a_truncated_image_is_decoded_as_far_as_possible_and_noted(root):
    torn = root / "PACS" / "photo" / "dog" / "torn.jpg"
    Image.effect_noise((64, 64), 100).convert("RGB").save(torn)
    torn.write_bytes(torn.read_bytes()[:-400])

    plane = _open(_pacs(root), SQUARED)

    assert plane.notes == [f"{torn} is truncated; the decodable part is used"]


def test_an_undecodable_image_is_named_and_nothing_is_left_behind(root, tmp_path):
    broken = root / "PACS" / "photo" / "dog" / "broken.jpg"
    broken.write_bytes(b"text")

    with pytest.raises(InputError, match=f"{broken} cannot be decoded"):
        _open(_pacs(root), SQUARED)

    assert not list((tmp_path / "cache").rglob("*eval*"))


def test_a_full_disk_is_reported_with_a_remedy_and_nothing_is_left_behind(root, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)

    with pytest.raises(InputError, match=r"No space left .* needs 75 KiB.*free space.*or train with --data_path exact"):
        _open(_pacs(root), SQUARED)

    assert not list((tmp_path / "cache").rglob("*eval*"))


def test_without_fallocate_the_free_space_decides_whether_the_cache_fits(root, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    _open(_pacs(root), SQUARED)
    usage = shutil.disk_usage(root)._replace(free=1024)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)

    with pytest.raises(InputError, match=r"No space left .* free space"):
        _open(_pacs(root), WHOLE)


def test_leftovers_of_a_killed_build_are_removed(root, tmp_path):
    dataset = _pacs(root)
    left_over = tmp_path / "cache" / "dg_batchformer" / "pixels" / dataset.identity().arrangement[:16] / ".eval-32.dead"
    left_over.mkdir(parents=True)

    _open(dataset, SQUARED)

    assert not left_over.exists()
