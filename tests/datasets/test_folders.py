import os
import shutil

import pytest
from PIL import Image

from dg_batchformer.datasets import get_dataset_class
from dg_batchformer.datasets.decoding import decode
from dg_batchformer.errors import InputError

HPARAMS = {"image_size": 32}
SHORT = "PACS has 2 classes here instead of 7"


def _pacs(root):
    return get_dataset_class("PACS")(root, [0], HPARAMS)


def test_environments_and_labels_are_domainbeds(image_folder):
    dataset = _pacs(image_folder(n=3))

    assert [environment.name for environment in dataset] == ["art_painting", "cartoon", "photo", "sketch"]
    assert dataset.classes == ["dog", "house"]
    assert dataset[1].labels == [0, 0, 0, 1, 1, 1]
    assert [file.name for file in dataset[1].files] == ["0.png", "1.png", "2.png"] * 2
    assert dataset.input_shape == (3, 32, 32)
    assert dataset.notes == [f"{SHORT}: dog, house"]


def test_a_missing_class_does_not_shift_labels_and_is_reported(image_folder):
    root = image_folder(classes=("dog", "elephant", "house"))
    shutil.rmtree(root / "PACS" / "cartoon" / "elephant")
    for file in (root / "PACS" / "photo" / "dog").iterdir():
        file.unlink()

    dataset = _pacs(root)

    assert dataset.num_classes == 3
    assert set(dataset[1].labels) == {0, 2}
    assert dataset.notes[:2] == ["PACS/cartoon has no images of: elephant", "PACS/photo has no images of: dog"]


def test_stray_folders_are_not_environments_and_are_reported(image_folder):
    root = image_folder()
    for stray in ("__MACOSX", ".git", "kfold"):
        (root / "PACS" / stray / "dog").mkdir(parents=True)

    dataset = _pacs(root)

    assert len(dataset) == 4
    assert dataset.notes == [
        f"ignored in {root}/PACS, not environments of PACS: .git, __MACOSX, kfold",
        f"{SHORT}: dog, house",
    ]


def test_missing_data_is_reported_with_a_remedy(image_folder, tmp_path):
    root = image_folder()
    with pytest.raises(InputError, match=r"PACS needs --data_dir: the folder that holds PACS/art_painting"):
        _pacs(None)
    with pytest.raises(InputError, match=rf"has no folder PACS; give its parent: --data_dir {root}"):
        _pacs(root / "PACS")
    with pytest.raises(InputError, match=r"has no folder PACS; PACS is expected there"):
        _pacs(tmp_path)
    (root / "PACS" / "sketch").rename(root / "PACS" / "sketches")
    with pytest.raises(
        InputError, match=r"lacks the environments sketch; it holds art_painting, cartoon, photo, sketches"
    ):
        _pacs(root)


def test_a_truncated_image_is_decoded_as_far_as_possible_and_reported(tmp_path):
    file = tmp_path / "torn.jpg"
    Image.effect_noise((64, 64), 100).convert("RGB").save(file)
    file.write_bytes(file.read_bytes()[:-400])

    image, whole = decode(file)

    assert image.size == (64, 64)
    assert not whole


@pytest.mark.parametrize("content", [b"", b"just text"])
def test_an_undecodable_image_is_named(tmp_path, content):
    file = tmp_path / "broken.jpg"
    file.write_bytes(content)

    with pytest.raises(InputError, match=rf"{file} cannot be decoded as an image .*; replace or remove it"):
        decode(file)


def test_the_fingerprint_depends_on_the_content_and_not_on_the_place(image_folder, tmp_path):
    root = image_folder()
    before = _pacs(root).fingerprint()
    shutil.copytree(root, tmp_path / "elsewhere")
    elsewhere = tmp_path / "elsewhere" / "PACS" / "photo" / "dog"
    (elsewhere / "0.png").rename(elsewhere / "9.png")

    assert _pacs(tmp_path / "elsewhere").fingerprint() == before
    assert _pacs(root).fingerprint() == before  # remembered

    shutil.move(root / "PACS" / "photo" / "dog" / "0.png", root / "PACS" / "photo" / "house" / "other.png")
    assert _pacs(root).fingerprint() != before


def _tie(folder):
    """Give all files of a folder the same size and time, as with archives and bitmaps."""
    for file in folder.rglob("*.bmp"):
        os.utime(file, (315532800, 315532800))


def test_swapped_class_folders_change_the_data_despite_equal_sizes_and_times(image_folder):
    root = image_folder()
    for number, file in enumerate(sorted((root / "PACS").rglob("*.png"))):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(file.with_suffix(".bmp"))
        file.unlink()
    _tie(root)
    before = _pacs(root).identity()
    photo = root / "PACS" / "photo"

    for old, new in (("dog", "x"), ("house", "dog"), ("x", "house")):
        (photo / old).rename(photo / new)

    assert _pacs(root).fingerprint() != before.fingerprint
    assert _pacs(root).identity().arrangement != before.arrangement


def test_an_overwritten_file_of_equal_size_and_time_is_another_file(image_folder):
    root = image_folder()
    file = root / "PACS" / "photo" / "dog" / "0.bmp"
    Image.new("RGB", (8, 8), (1, 2, 3)).save(file)
    _tie(root)
    before = _pacs(root).fingerprint()

    with file.open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"x")
    _tie(root)

    assert _pacs(root).fingerprint() != before


@pytest.mark.parametrize("damage", [lambda text: text[:30], lambda text: text.swapcase(), lambda text: ""])
def test_a_damaged_cached_identity_is_computed_again(image_folder, tmp_path, monkeypatch, damage):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = image_folder()
    before = _pacs(root).identity()
    [memo] = (tmp_path / "cache" / "dg_batchformer" / "identities").iterdir()

    memo.write_text(damage(memo.read_text()))

    assert _pacs(root).identity() == before
