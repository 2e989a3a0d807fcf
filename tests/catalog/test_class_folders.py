"""Class folders: which are classes, which files are images, and what is left out with a note."""

import os
import shutil

import pytest
from data_folders import write_images, write_own
from PIL import Image
from support import resolved

from dg_batchformer.catalog.class_folders import images_below, one_level_too_many, read_class_folders
from dg_batchformer.catalog.custom import find_dataset
from dg_batchformer.cli.main import main
from dg_batchformer.datasets import open_dataset
from dg_batchformer.errors import InputError
from dg_batchformer.models.images import find_images


def _open(root, name="Mine"):
    found = find_dataset(name, root)
    spec = resolved(dataset=found.dataset, environments=found.environments)
    return open_dataset(spec, root, {"image_size": 8})


def _nest(domain, *below):
    """Move the class folders of a domain one level down."""
    classes = list(domain.iterdir())
    for name in below:
        for kind in classes:
            shutil.copytree(kind, domain / name / kind.name)
    for kind in classes:
        shutil.rmtree(kind)


def _rename(folder, ending):
    for file in list(folder.iterdir()):
        file.rename(file.with_suffix(ending))


def test_classes_are_folders_and_images_are_what_lies_in_and_below_them(tmp_path):
    write_images(tmp_path / "cat", 2)
    write_images(tmp_path / "dog" / "small", 1)

    found = read_class_folders(tmp_path)

    assert {kind: [str(file.relative_to(tmp_path)) for file in files] for kind, files in found.images.items()} == {
        "cat": ["cat/0.png", "cat/1.png"],
        "dog": ["dog/small/0.png"],
    }
    assert not found.unread
    assert not found.beside
    assert not found.empty


@pytest.mark.parametrize("ending", [".PNG", ".Jpeg", ".jfif", ".JPE"])
def test_extensions_are_case_insensitive_and_include_all_of_jpeg(tmp_path, ending):
    write_images(tmp_path / "cat", 2)
    _rename(tmp_path / "cat", ending)

    images, unread = images_below(tmp_path)

    assert len(images) == 2
    assert unread == []


@pytest.mark.parametrize("name", [".git", ".ipynb_checkpoints", "__MACOSX", "@eaDir", "#recycle", "lost+found"])
def test_tool_folders_are_not_classes_and_contain_no_images(tmp_path, name):
    write_images(tmp_path / "cat", 1)
    write_images(tmp_path / name, 1)
    write_images(tmp_path / "cat" / name / "deep", 1)
    for litter in ("._0.png", "Thumbs.db", ".DS_Store", "desktop.ini"):
        (tmp_path / "cat" / litter).write_bytes(b"\xff\xd8\xff")

    found = read_class_folders(tmp_path)

    assert found.images == {"cat": [tmp_path / "cat" / "0.png"]}
    assert not found.unread
    assert not found.empty


def test_possible_images_are_recognised_by_extension_or_first_bytes(tmp_path):
    write_images(tmp_path / "cat", 3)
    (tmp_path / "cat" / "0.png").rename(tmp_path / "cat" / "0")
    (tmp_path / "cat" / "1.png").rename(tmp_path / "cat" / "1.png~")
    for name in ("a.HEIC", "b.avif", "c.gif", "notes.txt", "labels.csv"):
        (tmp_path / "cat" / name).write_text("text")
    shutil.copy(tmp_path / "cat" / "2.png", tmp_path / "other.png")
    (tmp_path / "README.md").write_text("text")

    found = read_class_folders(tmp_path)

    assert [file.name for file in found.images["cat"]] == ["2.png"]
    assert [file.name for file in found.unread] == ["0", "1.png~", "a.HEIC", "b.avif", "c.gif"]
    assert [file.name for file in found.beside] == ["other.png"]


def test_circular_links_are_followed_once(tmp_path):
    write_images(tmp_path / "a", 1)
    write_images(tmp_path / "b", 1)
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "other").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "back").symlink_to(tmp_path / "a")

    images, _ = images_below(tmp_path / "a")

    assert [str(file.relative_to(tmp_path)) for file in images] == ["a/0.png", "a/other/0.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_an_unreadable_class_folder_is_reported(tmp_path):
    write_images(tmp_path / "cat", 1)
    (tmp_path / "cat").chmod(0)
    try:
        with pytest.raises(InputError, match=r"cat cannot be read \(Permission denied\); make it readable"):
            read_class_folders(tmp_path)
    finally:
        (tmp_path / "cat").chmod(0o700)


@pytest.mark.parametrize("below", [("images",), ("train", "val"), ("Train", "Test"), ("anything",)])
def test_one_folder_level_too_many_is_refused_with_what_to_move(tmp_path, below, capsys):
    root = write_own(tmp_path)
    for domain in list((root / "Mine").iterdir()):
        _nest(domain, *below)

    with pytest.raises(InputError, match=rf"Mine/day has one .* too many: {', '.join(sorted(below))} would be"):
        _open(root)

    assert main(["data", "verify", "Mine", "--data_dir", str(root)]) == 1
    assert "error: nested: " in capsys.readouterr().out


def test_an_extra_level_in_one_domain_or_beside_classes_is_refused_too(tmp_path):
    root = write_own(tmp_path)
    _nest(root / "Mine" / "night", "images")
    write_images(root / "Mine" / "night" / "cat")

    with pytest.raises(InputError, match=r"Mine/night has one folder level too many: images would be read as a class"):
        _open(root)


def test_splits_that_contain_domains_are_not_domains(tmp_path):
    root = write_own(tmp_path)
    for split in ("train", "val"):
        shutil.copytree(root / "Mine", root / "Split" / split)
    shutil.copytree(root / "Mine", root / "Deep" / "images")

    with pytest.raises(InputError, match=r"Split holds train, val, which are splits, not domains"):
        _open(root, "Split")
    with pytest.raises(InputError, match=r"Deep has one domain, .*images holds day, night, rain: .* --dataset images"):
        _open(root, "Deep")


def test_folders_below_classes_count_as_of_the_class_and_are_noted(tmp_path):
    root = write_own(tmp_path)
    for domain in (root / "Mine").iterdir():
        (domain / "dog").rename(domain / "x")
        shutil.copytree(domain / "x", domain / "dog" / "poodle")
        shutil.rmtree(domain / "x")

    dataset = _open(root)

    assert dataset.classes == ["cat", "dog"]
    assert "images in subfolders of dog belong to that class" in dataset.notes
    assert one_level_too_many(dataset._read) == ""


def test_a_single_class_is_refused(tmp_path):
    root = write_own(tmp_path)
    for domain in (root / "Mine").iterdir():
        shutil.rmtree(domain / "dog")

    with pytest.raises(InputError, match=r"Mine has one class, cat, but at least 2 are needed"):
        _open(root)


def test_domains_named_like_splits_are_noted(tmp_path):
    dataset = _open(write_own(tmp_path, ("train", "test")))

    assert any("the domains of Mine have names of splits (test, train)" in note for note in dataset.notes)


def test_ignored_files_are_reported_by_all_readers_of_folders(tmp_path, capsys):
    root = write_own(tmp_path)
    for domain in (root / "Mine").iterdir():
        write_images(domain / "zebra", 2)
        _rename(domain / "zebra", ".heic")
    write_images(root / "Mine" / "day" / "x", 1)
    (root / "Mine" / "day" / "x" / "0.png").rename(root / "Mine" / "day" / "beside.png")
    unread = "6 files that could be images are not read: 6 .heic, such as "

    notes = _open(root).notes
    assert main(["data", "info", "Mine", "--data_dir", str(root)]) == 0
    info = capsys.readouterr().err
    assert main(["data", "verify", "Mine", "--data_dir", str(root)]) == 1
    verified = capsys.readouterr().out
    files, problems = find_images([str(root / "Mine")])

    for said in (" ".join(notes), info, " ".join(problems)):
        assert unread in said
    for said in (" ".join(notes), info):
        assert "1 image lies beside class folders, not in one, such as " in said
        assert "x, zebra: not a class, as no image in these folders is read" in said
    assert "error: unread (7): " in verified
    assert len(files) == 31


def test_a_domain_without_readable_images_reports_what_it_contains(tmp_path, capsys):
    root = write_own(tmp_path)
    for kind in ("cat", "dog"):
        _rename(root / "Mine" / "night" / kind, ".heic")

    with pytest.raises(InputError, match=r"Mine/night has no images in class folders .*10 files that could be images"):
        _open(root)

    assert main(["data", "verify", "Mine", "--data_dir", str(root)]) == 1
    assert "error: empty environment (1): " in capsys.readouterr().out


def test_a_manifest_lists_only_what_can_be_read(tmp_path):
    root = write_own(tmp_path)
    file = root / "Mine" / "day" / "cat" / "0.png"
    file.rename(file.with_name("0"))  # a PNG without extension
    (root / "Mine" / "day" / "cat" / "1.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0")
    rows = ["Mine/day/cat/0,cat,day", "Mine/night/dog/0.png,dog,night"]
    (root / "Good.csv").write_text("\n".join(["path,label,domain", *rows]))
    (root / "Bad.csv").write_text("\n".join(["path,label,domain", *rows, "Mine/day/cat/1.heic,cat,day"]))

    assert len(_open(root, "Good").files) == 2
    with pytest.raises(InputError, match=r"Bad.csv:4: .*1.heic has an unsupported format; convert it to JPEG or PNG"):
        _open(root, "Bad")


def test_known_datasets_are_read_by_the_same_rules(image_folder):
    root = image_folder()
    Image.new("RGB", (8, 8)).save(root / "PACS" / "photo" / "dog" / "new.gif")
    _nest(root / "PACS" / "sketch", "train", "val")
    spec = resolved(dataset="PACS")

    with pytest.raises(InputError, match=r"PACS/sketch has one folder level too many: .* data prepare PACS --from"):
        open_dataset(spec, root, {"image_size": 8})

    shutil.rmtree(root / "PACS" / "sketch" / "val")
    for kind in ("dog", "house"):
        (root / "PACS" / "sketch" / "train" / kind).rename(root / "PACS" / "sketch" / kind)
    (root / "PACS" / "sketch" / "train").rmdir()
    dataset = open_dataset(spec, root, {"image_size": 8})

    assert len(dataset.files) == 40
    assert any("1 file that could be an image is not read: 1 .gif" in note for note in dataset.notes)
