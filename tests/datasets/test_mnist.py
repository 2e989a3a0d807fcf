"""ColoredMNIST and RotatedMNIST, recomputed from generated files in the format of MNIST."""

import gzip

import numpy as np
import pytest
import torch
from data_folders import write_mnist
from support import resolved

from dg_batchformer.datasets import open_dataset
from dg_batchformer.errors import InputError


def _open(name, root, trial=0):
    return open_dataset(resolved(dataset=name, trial_seed=trial), root, {})


def _draws(trial, env_sizes):
    """Draw as DomainBed does with ``--seed trial``: a permutation, then two numbers per image."""
    torch.manual_seed(trial)
    order = torch.randperm(sum(env_sizes)).numpy()
    return order, [(torch.rand(size).numpy(), torch.rand(size).numpy()) for size in env_sizes]


@pytest.mark.parametrize("trial", [0, 3])
def test_colours_and_labels_are_drawn_as_domainbed_draws_them(trial, tmp_path):
    images, digits = write_mnist(tmp_path)
    order, draws = _draws(trial, [24, 24, 24])
    dataset = _open("ColoredMNIST", tmp_path, trial)

    for env, (flips, (lies, changes)) in enumerate(zip((0.1, 0.2, 0.9), draws, strict=True)):
        rows = order[env::3]
        labels = (digits[rows] < 5) != (lies < 0.25)
        colours = labels != (changes < flips)
        assert dataset[env].labels == labels.astype(int).tolist()
        kept = dataset[env].images.numpy()
        assert np.array_equal(kept[np.arange(24), colours.astype(int)], images[rows])
        assert not kept[np.arange(24), 1 - colours.astype(int)].any()


def test_digits_are_distributed_and_rotated(tmp_path):
    images, digits = write_mnist(tmp_path)
    order, _ = _draws(1, [72])
    dataset = _open("RotatedMNIST", tmp_path, trial=1)

    assert np.array_equal(dataset[0].images[:, 0].numpy(), images[order[0::6]])
    for env in range(6):
        assert dataset[env].labels == digits[order[env::6]].tolist()
        theta = np.radians(15 * env)
        y, x = np.mgrid[:28, :28] - 13.5
        source_x, source_y = np.cos(theta) * x - np.sin(theta) * y, np.sin(theta) * x + np.cos(theta) * y
        whole = (np.abs(source_x) < 13) & (np.abs(source_y) < 13)
        for made, index in zip(dataset[env].images[:, 0].numpy(), order[env::6], strict=True):
            expected = _bilinear(images[index], source_y + 13.5, source_x + 13.5)
            assert np.abs(made - expected)[whole].max() <= 1  # Pillow rounds
            assert not made[(np.abs(source_x) > 14.5) | (np.abs(source_y) > 14.5)].any()


def _bilinear(image, y, x):
    y, x = np.clip(y, 0, 27), np.clip(x, 0, 27)
    top, left = np.minimum(np.floor(y), 26).astype(int), np.minimum(np.floor(x), 26).astype(int)
    down, right = y - top, x - left
    upper = image[top, left] * (1 - right) + image[top, left + 1] * right
    lower = image[top + 1, left] * (1 - right) + image[top + 1, left + 1] * right
    return upper * (1 - down) + lower * down


def test_a_trial_has_images_of_its_own_and_keeps_them(tmp_path):
    write_mnist(tmp_path)
    first, again, other = (_open("ColoredMNIST", tmp_path, trial)[0].images for trial in (0, 0, 1))

    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_zipped_files_are_read_as_they_are(tmp_path):
    write_mnist(tmp_path)
    plain = _open("RotatedMNIST", tmp_path)
    for file in list((tmp_path / "MNIST" / "raw").iterdir()):
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()

    assert torch.equal(_open("RotatedMNIST", tmp_path)[5].images, plain[5].images)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("train-images-idx3-ubyte", None, r"MNIST is missing: .*download it with: python -c 'from torchvision"),
        ("t10k-labels-idx1-ubyte", b"", r"is not a complete IDX file of 1 dimensions"),
        ("t10k-labels-idx1-ubyte", b"\0\0\x08\1\0\0\0\x0c\0\0", r"of 1 dimensions; download it again"),
        ("t10k-labels-idx1-ubyte", b"\0\0\x08\1\0\0\0\2\0\0", r"is not MNIST: t10k has images"),
        ("t10k-images-idx3-ubyte", b"<!DOCTYPE html>", r"is not a complete IDX file of 3 dimensions"),
    ],
)
def test_files_that_are_missing_or_damaged_are_named(file, content, message, tmp_path):
    write_mnist(tmp_path)
    path = tmp_path / "MNIST" / "raw" / file
    path.unlink() if content is None else path.write_bytes(content)

    with pytest.raises(InputError, match=message):
        _open("ColoredMNIST", tmp_path)


def test_a_zipped_file_that_is_damaged_is_named(tmp_path):
    write_mnist(tmp_path)
    file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes())[:-20])
    file.unlink()

    with pytest.raises(InputError, match=r"train-images-idx3-ubyte.gz cannot be read .*; download it again"):
        _open("ColoredMNIST", tmp_path)
