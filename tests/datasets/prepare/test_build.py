"""Preparation of datasets from every format to the folders that runs read."""

import dataclasses
import errno
import json
import os
import tarfile
import zipfile

import pytest
from loopback import cut, serving, status, whole

from dg_batchformer.catalog.datasets import DATASETS, dataset_facts
from dg_batchformer.cli.main import main
from dg_batchformer.datasets import get_dataset_class
from dg_batchformer.datasets.prepare import layouts, mirrors
from dg_batchformer.datasets.prepare.build import Workspace, prepare
from dg_batchformer.datasets.prepare.download import Patience
from dg_batchformer.datasets.prepare.sources import SOURCES, Mirror, RemoteFile, Source
from dg_batchformer.datasets.prepare.terra import CLASSES
from dg_batchformer.errors import InputError
from dg_batchformer.storage.lock import Busy, held

PACS_CLASSES = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
VLCS_CLASSES = ("bird", "car", "chair", "dog", "person")
QUICK = Patience(attempts=2, first_wait=0.01, timeout=5)


def _images(folder, environments, classes, image="1.jpg"):
    """Write one file per environment and class; nothing decodes it here."""
    for environment in environments:
        for kind in classes:
            path = folder / environment / kind / image
            path.parent.mkdir(parents=True)
            path.write_text(f"{environment} {kind}")
    return folder


def _zip(path, folder):
    """Pack the contents of a folder."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path


def _prepare(name, tmp_path, *given, notes=None, **options):
    said = [] if notes is None else notes
    return prepare(name, tmp_path / "data", given, note=said.append, patience=QUICK, **options)


def _tree(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def _with_two_classes(monkeypatch, name):
    """Reduce a dataset to two classes."""
    facts = dataclasses.replace(dataset_facts(name), num_classes=2)
    monkeypatch.setitem(DATASETS, name, facts)
    return facts


def _nothing_was_put_in_place(tmp_path, folder):
    return not (tmp_path / "data" / folder).exists() and not list(tmp_path.glob("data/.prepare/*/*built/*"))


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_is_of_a_dataset_of_image_folders(name):
    facts, source = dataset_facts(name), SOURCES[name]

    assert facts.folder
    assert get_dataset_class(name)
    assert source.page.startswith("https://")
    assert set(source.environments.values()) <= set(facts.names)
    for mirror in source.mirrors:
        assert len({file.name for file in mirror.files}) == len(mirror.files)
        assert all(file.address.startswith(("https://", "http://")) for file in mirror.files)


def test_the_official_archives_of_pacs_become_what_runs_read(tmp_path):
    _images(tmp_path / "zip" / "kfold", dataset_facts("PACS").names, PACS_CLASSES)

    dataset = _prepare("PACS", tmp_path, _zip(tmp_path / "PACS.zip", tmp_path / "zip"))

    assert dataset.classes == list(PACS_CLASSES)
    assert [len(environment) for environment in dataset] == [7, 7, 7, 7]
    assert _tree(tmp_path / "data") == {f"PACS/{e}/{c}/1.jpg" for e in dataset.facts.names for c in PACS_CLASSES}
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["PACS"]  # nothing else is left


@pytest.mark.parametrize(
    ("name", "below", "environments"),
    [
        ("PACS", "pacs/images", ["art_painting", "cartoon", "photo", "sketch"]),
        ("PACS", "Homework3-PACS-master/PACS", ["art_painting", "cartoon", "photo", "sketch"]),
        ("OfficeHome", "office-home", ["Art", "Clipart", "Product", "Real_World"]),
        ("OfficeHome", ".", ["art", "clipart", "product", "real_world"]),
        ("OfficeHome", "OfficeHomeDataset_10072016", ["Art", "Clipart", "Product", "Real World"]),
        ("SVIRO", "SVIRO_DOMAINBED", list(dataset_facts("SVIRO").names)),
        ("TerraIncognita", "terra_incognita", list(dataset_facts("TerraIncognita").names)),
    ],
)
def test_folders_of_other_suites_are_linked_and_not_copied(tmp_path, monkeypatch, name, below, environments):
    facts = _with_two_classes(monkeypatch, name)
    theirs = _images(tmp_path / "theirs" / below, environments, ["dog", "horse"])
    (theirs / "image_list").mkdir()

    dataset = _prepare(name, tmp_path, tmp_path / "theirs")

    assert [environment.name for environment in dataset] == list(facts.names)
    pairs = zip(facts.names, environments, strict=True)
    for ours, other in pairs:
        file = tmp_path / "data" / facts.folder / ours / "dog" / "1.jpg"
        assert file.stat().st_nlink == 2
        assert file.samefile(theirs / other / "dog" / "1.jpg")


def test_the_archives_of_the_office_datasets_get_the_names_of_environments_and_classes_of_papers(tmp_path, monkeypatch):
    for name in ("Office31", "OfficeCaltech10"):
        _with_two_classes(monkeypatch, name)
    for domain in ("amazon", "dslr", "webcam"):
        _images(tmp_path / "office31", [f"{domain}/images"], ["back_pack", "laptop_computer"])
    _images(tmp_path / "ten", ["amazon", "caltech", "dslr", "webcam"], ["back_pack", "laptop_computer"])

    office, ten = (
        _prepare("Office31", tmp_path, tmp_path / "office31"),
        _prepare("OfficeCaltech10", tmp_path, tmp_path / "ten"),
    )

    assert [environment.name for environment in office] == ["amazon", "dslr", "webcam"]
    assert office.classes == ["back_pack", "laptop_computer"]
    assert [environment.name for environment in ten] == ["amazon", "caltech10", "dslr", "webcam"]
    assert ten.classes == ["backpack", "laptop"]


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO])
def test_images_are_copied_with_a_note_if_they_cannot_be_linked(tmp_path, monkeypatch, number):
    def link(*paths):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(layouts.os, "link", link)
    _images(tmp_path / "theirs", dataset_facts("PACS").names, PACS_CLASSES)
    notes = []

    dataset = prepare("PACS", tmp_path / "data", [tmp_path / "theirs"], note=notes.append)

    assert [note for note in notes if "so they are copied" in note]

    assert dataset.files[0].read_text() == "art_painting dog"
    assert dataset.files[0].stat().st_nlink == 1


def test_dassls_splits_are_joined_and_its_numbered_classes_get_names(tmp_path):
    digits = [str(label) for label in range(5)]
    for environment in ("CALTECH", "LABELME", "PASCAL", "SUN"):
        _images(tmp_path / "VLCS" / environment, ["crossval", "full", "test", "train"], digits)
        for split in ("full", "train"):  # an image that two splits repeat
            (tmp_path / "VLCS" / environment / split / "0" / "same.jpg").write_text("same")

    dataset = _prepare("VLCS", tmp_path, tmp_path / "VLCS")

    assert dataset.classes == list(VLCS_CLASSES)
    names = {path.name for path in (tmp_path / "data" / "VLCS" / "SUN09" / "bird").iterdir()}
    assert names == {"1.jpg", "full_1.jpg", "test_1.jpg", "train_1.jpg", "same.jpg"}


def test_domainnet_comes_from_an_archive_per_domain_without_its_duplicates(tmp_path, monkeypatch):
    facts = _with_two_classes(monkeypatch, "DomainNet")
    (tmp_path / "zips").mkdir()
    for environment in facts.names:
        _images(tmp_path / environment, [environment], ["bee", "cow"])
        (tmp_path / environment / environment / "bee" / "2.jpg").write_text("duplicate")
        _zip(tmp_path / "zips" / f"{environment}.zip", tmp_path / environment)
    names, notes = tmp_path / "list.txt", []
    names.write_text("\n".join(f"{environment}/bee/2.jpg" for environment in facts.names))

    dataset = _prepare("DomainNet", tmp_path, tmp_path / "zips", names, notes=notes)

    assert [len(environment) for environment in dataset] == [2] * 6
    assert not notes

    (tmp_path / "data" / "domain_net").rename(tmp_path / "data" / "cleaned")
    dataset = _prepare("DomainNet", tmp_path, tmp_path / "zips", notes=notes)
    assert [len(environment) for environment in dataset] == [3] * 6
    assert notes[0].startswith("duplicates are kept, while papers remove them: give the list of duplicates too")


def _camera_traps(tmp_path):
    """Write the two archives of TerraIncognita: an image per location and class, and images to leave out."""
    shots, marks = [], []
    names = [*CLASSES, "car"]
    for location in (38, 46, 100, 43, 7):
        for kind in range(len(names)):
            image = f"{location}-{names[kind]}"
            shots.append({"id": image, "file_name": f"{image}.jpg", "location": location})
            marks += [{"image_id": image, "category_id": kind}] * 2
    marks.append({"image_id": "38-bird", "category_id": names.index("cat")})
    content = {"images": shots, "annotations": marks, "categories": [{"id": n, "name": c} for n, c in enumerate(names)]}
    images = tmp_path / "raw" / "eccv_18_all_images_sm"
    images.mkdir(parents=True)
    for shot in shots:
        (images / shot["file_name"]).write_text(shot["id"])
    (images / "38-dog.jpg").unlink()
    labels = tmp_path / "labels" / "eccv_18_annotation_files"
    labels.mkdir(parents=True)
    (labels / "train.json").write_text(json.dumps(content))
    for name, folder in (("images.tar.gz", tmp_path / "raw"), ("annotations.tar.gz", tmp_path / "labels")):
        with tarfile.open(tmp_path / name, "w:gz") as archive:
            archive.add(folder, ".")
    return tmp_path / "images.tar.gz", tmp_path / "annotations.tar.gz"


@pytest.mark.parametrize("form", ["archives", "folders", "folder of archives"])
def test_terra_incognita_is_built_from_images_and_annotations(tmp_path, form):
    archives, notes = _camera_traps(tmp_path), []
    (tmp_path / "downloads").mkdir()
    if form == "folder of archives":
        archives = [path.rename(tmp_path / "downloads" / path.name) for path in archives]
    given = {"archives": archives, "folders": [tmp_path / "raw", tmp_path / "labels"]}.get(
        form, [tmp_path / "downloads"]
    )

    dataset = _prepare("TerraIncognita", tmp_path, *given, notes=notes)

    assert dataset.classes == list(CLASSES)
    assert [len(environment) for environment in dataset] == [10, 10, 10, 10]  # L38 lacks a dog and has a bird twice
    built = tmp_path / "data" / "terra_incognita" / "location_38"
    assert (built / "bird" / "38-bird.jpg").samefile(built / "cat" / "38-bird.jpg")
    assert notes == ["1 of 40 annotated images are missing, and skipped: 38-dog.jpg"]


def test_terra_incognita_without_images_says_what_is_missing(tmp_path):
    _, annotations = _camera_traps(tmp_path)

    with pytest.raises(InputError, match=r"none of the 40 annotated images was given; eccv_18_all_images_sm.tar.gz"):
        _prepare("TerraIncognita", tmp_path, annotations)
    assert _nothing_was_put_in_place(tmp_path, "terra_incognita")


def test_an_incomplete_dataset_is_never_put_in_place(tmp_path):
    partial = _images(tmp_path / "partial", ["photo", "sketch"], PACS_CLASSES)
    with pytest.raises(
        InputError, match=r"contain photo, sketch, but lack the folders art_painting, cartoon; nothing was"
    ):
        _prepare("PACS", tmp_path, partial)

    few = _images(tmp_path / "few", dataset_facts("PACS").names, PACS_CLASSES[:3])
    with pytest.raises(InputError, match=r"have 3 classes \(dog, elephant, giraffe\) instead of 7; nothing was"):
        _prepare("PACS", tmp_path, few)

    whole = _images(tmp_path / "whole", dataset_facts("PACS").names, PACS_CLASSES)
    archive = _zip(tmp_path / "half.zip", whole)
    archive.write_bytes(archive.read_bytes()[:-900])
    with pytest.raises(InputError, match=r"half.zip cannot be read"):
        _prepare("PACS", tmp_path, archive)

    assert _nothing_was_put_in_place(tmp_path, "PACS")


def test_leftovers_of_a_killed_process_are_not_part_of_the_next_result(tmp_path):
    space = Workspace(tmp_path / "data", "PACS")
    _images(space.built / "PACS", ["photo"], ["cat"])
    _images(space.unpacked, dataset_facts("PACS").names, ["cat"])
    theirs = _images(tmp_path / "theirs", dataset_facts("PACS").names, PACS_CLASSES)

    assert _prepare("PACS", tmp_path, theirs).classes == list(PACS_CLASSES)


def test_two_processes_do_not_prepare_a_dataset_at_the_same_time(tmp_path):
    space = Workspace(tmp_path / "data", "PACS")
    space.folder.mkdir(parents=True)
    with held(space.lock_file), pytest.raises(Busy, match=r"\.prepare/PACS is in use by process"):
        _prepare("PACS", tmp_path, tmp_path)


def test_existing_data_is_not_overwritten(tmp_path):
    (tmp_path / "data" / "PACS").mkdir(parents=True)

    with pytest.raises(InputError, match=r"PACS exists already; check it with: data verify PACS, or move it away"):
        _prepare("PACS", tmp_path, tmp_path)


def test_two_formats_of_one_dataset_are_not_mixed(tmp_path):
    _zip(tmp_path / "PACS.zip", _images(tmp_path / "zip", ["photo"], ["dog"]))
    (tmp_path / "0.parquet").write_bytes(b"PAR1")

    with pytest.raises(InputError, match=r"0.parquet and .*PACS.zip are two forms of PACS; give one of them"):
        _prepare("PACS", tmp_path, tmp_path)


def test_an_ambiguous_folder_name_is_not_guessed(tmp_path):
    _images(tmp_path / "theirs", ["Art", "Clipart", "Product", "Real World", "Real_World"], ["Bed"])

    with pytest.raises(InputError, match=r"both .*Real World and .*Real_World may be Real World of OfficeHome"):
        _prepare("OfficeHome", tmp_path, tmp_path / "theirs")


@pytest.mark.parametrize("content", [None, b"text"])
def test_given_paths_must_exist_and_be_usable(tmp_path, content):
    if content is not None:
        (tmp_path / "PACS.zip").write_bytes(content)
    message = r"PACS.zip does not exist" if content is None else r"PACS.zip cannot be used for PACS"

    with pytest.raises(InputError, match=message):
        _prepare("PACS", tmp_path, tmp_path / "PACS.zip")


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server with PACS.zip at /good, and the mirrors of PACS set to /first and /good."""
    monkeypatch.setenv("no_proxy", "*")
    folder = _images(tmp_path / "zip", dataset_facts("PACS").names, PACS_CLASSES)
    with serving() as server:
        content = _zip(tmp_path / "PACS.zip", folder).read_bytes()
        server.serve("/good", cut(content, 1000, etag='"1"'), whole(content, etag='"1"'))
        names = ("first", "good")
        made = (Mirror(name, (RemoteFile(f"{name}.zip", f"{server.address}/{name}"),)) for name in names)
        monkeypatch.setitem(SOURCES, "PACS", Source(page="https://example.org/PACS", mirrors=tuple(made)))
        yield server


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (status(404), "answers HTTP 404 Not Found"),
        (whole(b"no archive"), "did not deliver a zip or tar"),
        (
            whole(b"<html><title>Quota exceeded</title>", kind="text/html"),
            "answers with a web page titled 'Quota exceeded'",
        ),
    ],
)
def test_a_failing_mirror_is_skipped_with_a_note(server, tmp_path, answer, reason):
    server.serve("/first", answer)
    notes = []

    dataset = _prepare("PACS", tmp_path, notes=notes)

    assert len(dataset.files) == 28
    assert len(notes) == 1
    assert reason in notes[0]
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["PACS"]


def test_only_the_requested_mirror_is_tried(server, tmp_path):
    server.serve("/first", status(404))

    with pytest.raises(
        InputError, match=r"PACS could not be downloaded \(mirror 1: .* 404 .*\); try again later, or get it fr"
    ):
        _prepare("PACS", tmp_path, mirror=1)
    with pytest.raises(InputError, match=r"PACS has no mirror 3; its mirrors are 1 first, 2 good"):
        _prepare("PACS", tmp_path, mirror=3)
    assert {path for path, _ in server.requests} == {"/first"}


def test_a_damaged_download_is_fetched_again_next_time(server, tmp_path):
    good = (tmp_path / "PACS.zip").read_bytes()
    server.serve("/first", whole(good.replace(b"PK\x01\x02", b"PK\x01\x03", 1)), whole(good))

    with pytest.raises(InputError, match=r"first.zip cannot be read"):
        _prepare("PACS", tmp_path, mirror=1)
    assert len(_prepare("PACS", tmp_path, mirror=1).files) == 28


def test_parquet_mirrors_are_skipped_without_pyarrow(server, tmp_path, monkeypatch):
    def missing():
        raise mirrors.NoPyarrow("pip install pyarrow")

    monkeypatch.setattr(mirrors, "require_pyarrow", missing)
    tables = Mirror("HuggingFace", (RemoteFile("0.parquet", server.address + "/0"),))
    monkeypatch.setitem(
        SOURCES, "PACS", Source(page="https://example.org", mirrors=(tables, *SOURCES["PACS"].mirrors[1:]))
    )
    notes = []

    assert len(_prepare("PACS", tmp_path, notes=notes).files) == 28
    assert notes == ["mirror 1: pip install pyarrow"]


def test_the_command_prints_what_it_built_and_the_next_command(server, tmp_path, capsys):
    data = str(tmp_path / "data")

    assert main(["data", "prepare", "PACS", "--data_dir", data, "--mirror", "2"]) == 0

    said = capsys.readouterr().out
    assert f"{data}/PACS: 28 images of 7 classes (art_painting 7, cartoon 7, photo 7, sketch 7)" in said
    assert said.endswith(f"next: python -m dg_batchformer data verify PACS --data_dir {data}\n")


def test_a_dry_run_says_everything_and_does_nothing(tmp_path, capsys):
    data = tmp_path / "data"

    assert main(["data", "prepare", "TerraIncognita", "--data_dir", str(data), "--dry_run"]) == 0
    said = capsys.readouterr().out
    for mirror in SOURCES["TerraIncognita"].mirrors:
        assert all(file.address in said for file in mirror.files)
    assert "6.05 GiB" in said
    assert f"into {data / 'terra_incognita'}, where " in said

    theirs = _images(tmp_path / "theirs", ["Art", "Clipart", "Product", "Real_World"], ["Bed"])
    command = ["data", "prepare", "OfficeHome", "--data_dir", str(data), "--from", str(theirs), "--dry_run"]
    assert main(command) == 0
    assert f"{theirs}: Art, Clipart, Product, Real_World" in capsys.readouterr().out
    assert not data.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["PASC"], "unknown dataset 'PASC'; did you mean 'PACS'?"),
        (["Shapes"], "Shapes cannot be prepared; datasets that can: VLCS, PACS"),
        (["PACS", "--mirror", "9", "--dry_run"], "PACS has no mirror 9; its mirrors are 1 "),
        (["Office31", "--dry_run"], "Office31 has no automatic download; get it from https://"),
        (["PACS", "--from", "nowhere"], "nowhere does not exist; give an archive, or a folder"),
    ],
)
def test_wrong_input_is_one_sentence(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)

    assert main(["data", "prepare", *arguments, "--data_dir", str(tmp_path / "data")]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert not said.out


def test_a_read_only_folder_is_reported_in_one_sentence(tmp_path):
    (tmp_path / "data").write_text("a file where a folder should be")

    with pytest.raises(InputError, match=rf"cannot read or write {tmp_path}/data"):
        _prepare("PACS", tmp_path, tmp_path)
    assert os.listdir(tmp_path) == ["data"]  # noqa: PTH208
