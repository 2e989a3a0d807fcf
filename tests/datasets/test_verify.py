"""Verification of datasets: every kind of finding."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dg_batchformer.cli.main import main
from dg_batchformer.datasets import counts, get_dataset_class
from dg_batchformer.datasets.counts import Version
from dg_batchformer.datasets.findings import ERROR, NOTE, WARNING
from dg_batchformer.datasets.integrity import inspect_file, inspect_files
from dg_batchformer.datasets.tree import read_tree
from dg_batchformer.datasets.verify import verify


@pytest.fixture
def mine(image_folder):
    """Return a valid custom dataset: four environments of dog and house, five images each."""
    root = image_folder()
    (root / "PACS").rename(root / "Mine")
    return root / "Mine"


@pytest.fixture
def pacs(image_folder, monkeypatch):
    """Return a PACS that counts as published: two classes of five images in each environment."""
    root = image_folder()
    environments = ("art_painting", "cartoon", "photo", "sketch")
    published = {environment: {"dog": 5, "house": 5} for environment in environments}
    versions = [Version("PACS-40", "made up", "this test", published, None)]
    monkeypatch.setattr(counts, "known_versions", lambda dataset: versions if dataset == "PACS" else [])
    return root / "PACS"


def _verify(folder, **given):
    tree = read_tree(folder.name, folder.parent)
    return verify(tree, list(inspect_files([file for _, _, file in tree.placed])), **given)


def _found(folder, **given):
    return {(found.kind, found.severity): found.items for found in _verify(folder, **given).findings}


def _photo(folder, size=(64, 48)):
    file = folder / "photo" / "dog" / "new.jpg"
    return file, Image.effect_noise(size, 100).convert("RGB")


def test_environments_and_classes_that_differ_only_in_case_are_reported(mine):
    shutil.copytree(mine / "photo", mine / "Photo")
    (mine / "cartoon" / "dog").rename(mine / "cartoon" / "Dog")

    assert _found(mine)["case", WARNING] == ("environments: Photo, photo", "classes: Dog, dog")


def test_sound_data_are_right_and_are_described(mine):
    verification = _verify(mine)

    assert verification.is_right
    assert verification.findings == []
    assert verification.sizes == dict.fromkeys(("min", "median", "max"), (40, 30))
    assert verification.modes == {"RGB": 40}
    assert verification.num_bytes == sum(file.stat().st_size for file in mine.rglob("*.png"))


@pytest.mark.parametrize(
    ("content", "kind"), [(b"", "empty"), (b"<html>Quota exceeded</html>", "no image"), (None, "unreadable")]
)
def test_files_that_are_not_images_are_named(mine, content, kind):
    file = mine / "photo" / "dog" / "new.jpg"
    if content is None:
        file.symlink_to("nowhere.jpg")
    else:
        file.write_bytes(content)

    [((found, severity), [item])] = _found(mine).items()

    assert (found, severity) == (kind, ERROR)
    assert item.startswith("photo/dog/new.jpg")


@pytest.mark.parametrize(("kept", "kind"), [(0.6, "truncated"), (0.05, "broken")])
def test_a_truncated_image_is_named(mine, kept, kind):
    file, image = _photo(mine)
    image.save(file)
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content))])

    [((found, severity), [item])] = _found(mine).items()

    assert (found, severity) == (kind, ERROR)
    assert item.startswith("photo/dog/new.jpg (")


@pytest.mark.parametrize("settings", [{}, {"progressive": True}])
def test_a_jpeg_truncated_anywhere_is_found_as_in_a_full_decode(tmp_path, settings):
    """Decoding at an eighth of the size finds every truncation."""
    file = tmp_path / "image.jpg"
    Image.effect_noise((48, 40), 100).convert("RGB").save(file, **settings)
    content = file.read_bytes()

    for length in [*range(700, len(content), 131), *range(len(content) - 4, len(content) + 1)]:
        file.write_bytes(content[:length])
        try:
            with Image.open(file) as image:
                image.load()
            whole = True
        except (OSError, SyntaxError):
            whole = False
        assert (inspect_file(file).defect == "") == whole, length


def test_odd_images_are_named_but_are_not_errors(mine):
    folder = mine / "photo" / "dog"
    _, image = _photo(mine)
    image.convert("CMYK").save(folder / "cmyk.jpg")
    image.convert("P").save(folder / "palette.png")
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000).save(folder / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(folder / "turned.jpg", exif=exif)
    exif[0x0112] = 1
    image.rotate(180).save(folder / "upright.jpg", exif=exif)
    image.crop((0, 0, 1, 1)).save(folder / "tiny.png")

    verification = _verify(mine)
    found = _found(mine)

    assert verification.is_right
    assert found == {
        ("tiny", WARNING): ("photo/dog/tiny.png (1 x 1)",),
        ("16-bit", WARNING): ("photo/dog/deep.png (I;16)",),
        ("rotated", NOTE): ("photo/dog/turned.jpg",),
        ("mode", NOTE): ("photo/dog/cmyk.jpg (CMYK)", "photo/dog/palette.png (P)"),
    }
    assert verification.modes == {"RGB": 43, "CMYK": 1, "I;16": 1, "P": 1}


def test_warnings_are_errors_if_strict_and_notes_are_not(mine):
    (mine / "notes.txt").touch()
    _, image = _photo(mine)
    image.convert("CMYK").save(mine / "photo" / "dog" / "cmyk.jpg")

    assert {severity for _, severity in _found(mine)} == {WARNING, NOTE}
    assert {severity for _, severity in _found(mine, strict=True)} == {ERROR, NOTE}


def test_equal_content_is_reported_with_its_most_severe_meaning(mine):
    for source, target in (
        ("photo/dog/0.png", "sketch/dog/leak.png"),
        ("photo/dog/1.png", "photo/house/other.png"),
        ("photo/dog/2.png", "photo/dog/copy.png"),
    ):
        shutil.copy(mine / source, mine / target)

    assert _found(mine) == {
        ("leak", ERROR): ("photo/dog/0.png = sketch/dog/leak.png",),
        ("two labels", ERROR): ("photo/dog/1.png = photo/house/other.png",),
        ("duplicate", ERROR): ("photo/dog/2.png = photo/dog/copy.png",),
    }


def test_equal_content_in_a_published_dataset_is_a_warning_unless_strict(pacs):
    shutil.copy(pacs / "photo/dog/0.png", pacs / "sketch/dog/0.png")

    assert list(_found(pacs)) == [("leak", WARNING)]
    assert list(_found(pacs, strict=True)) == [("leak", ERROR)]


def test_a_missing_class_is_a_warning_in_data_of_your_own_and_an_error_in_published_ones(mine, pacs):
    shutil.rmtree(mine / "photo" / "dog")
    shutil.rmtree(pacs / "photo" / "dog")

    assert _found(mine) == {("missing class", WARNING): ("photo/dog",)}
    assert _found(pacs)["missing class", ERROR] == ("photo/dog",)


def test_files_that_no_run_reads_are_named(mine):
    for folder in ("__MACOSX", "photo/empty"):
        (mine / folder).mkdir()
    for file in (".DS_Store", "photo/Thumbs.db", "photo/dog/notes.txt"):
        (mine / file).touch()

    [strays] = _found(mine).values()

    assert strays == (".DS_Store", "__MACOSX/", "photo/Thumbs.db", "photo/dog/notes.txt", "photo/empty/")


def test_an_image_in_another_class_folder_changes_two_counts(pacs):
    shutil.move(pacs / "photo" / "dog" / "0.png", pacs / "photo" / "house" / "moved.png")

    assert _found(pacs) == {("counts", ERROR): ("photo/dog: 4 of 5", "photo/house: 6 of 5")}


def test_a_part_of_a_published_dataset_is_a_subset_with_its_counts(pacs):
    (pacs / "photo" / "dog" / "0.png").unlink()

    [finding] = _verify(pacs).findings

    assert (finding.kind, finding.severity, finding.items) == ("subset", ERROR, ("photo/dog: 4 of 5",))
    assert finding.message == "a subset of PACS-40: 39 of 40 images"


def test_folders_that_are_neither_class_nor_environment_are_named(pacs):
    (pacs / "photo" / "dog").rename(pacs / "photo" / "Dog")
    (pacs / "sketch").rename(pacs / "Sketch")

    found = _found(pacs)

    assert found["missing environment", ERROR] == ("sketch",)
    assert found["unknown class", ERROR] == ("photo/Dog",)
    assert "photo/dog" in found["missing class", ERROR]
    assert found["stray", WARNING] == ("Sketch/",)


def test_a_published_dataset_is_recognised_by_its_counts_or_its_fingerprint(pacs, monkeypatch):
    by_counts = _verify(pacs)
    [version] = counts.known_versions("PACS")

    def known(fingerprint):
        return lambda dataset: [Version(version.name, "made up", "this test", version.counts, fingerprint)]

    monkeypatch.setattr(counts, "known_versions", known(by_counts.fingerprint))
    by_fingerprint = _verify(pacs)
    monkeypatch.setattr(counts, "known_versions", known("of other files"))
    other = _verify(pacs)

    assert (str(by_counts.recognition), by_counts.findings) == ("PACS-40 (by counts)", [])
    assert (str(by_fingerprint.recognition), by_fingerprint.findings) == ("PACS-40", [])
    assert (str(other.recognition), [found.kind for found in other.findings]) == (
        "PACS-40 (by counts)",
        ["other files"],
    )


def test_the_fingerprint_equals_that_of_records_wherever_the_files_are(pacs, tmp_path):
    expected = get_dataset_class("PACS")(pacs.parent, [0], {"image_size": 32}).fingerprint()
    shutil.copytree(pacs, tmp_path / "elsewhere" / "PACS", copy_function=shutil.copyfile)
    elsewhere = tmp_path / "elsewhere" / "PACS" / "photo" / "dog"
    (elsewhere / "0.png").rename(elsewhere / "9.png")
    os.utime(elsewhere / "1.png", (0, 0))

    assert _verify(pacs).fingerprint == _verify(tmp_path / "elsewhere" / "PACS").fingerprint == expected

    (elsewhere / "9.png").rename(tmp_path / "elsewhere" / "PACS" / "photo" / "house" / "9.png")
    assert _verify(tmp_path / "elsewhere" / "PACS").fingerprint != expected


def test_many_files_are_inspected_by_processes_with_equal_results_in_their_order(mine):
    files = sorted(mine.rglob("*.png")) * 20
    (mine / "photo" / "dog" / "3.png").write_bytes(b"text")

    assert list(inspect_files(files)) == [inspect_file(file) for file in files]


def test_with_errors_the_exit_status_is_1_and_they_are_listed(mine, capsys):
    command = ["data", "verify", "Mine", "--data_dir", str(mine.parent)]
    assert main(command) == 0
    assert "Mine is intact; no published counts are available to compare it with" in capsys.readouterr().out

    (mine / "photo" / "dog" / "0.png").write_bytes(b"")
    assert main(command) == 1
    said = capsys.readouterr().out

    assert "error: empty (1): empty files\n  photo/dog/0.png" in said
    assert said.rstrip().endswith("Mine is not right: 1 error")


def test_the_text_shows_both_counts_if_they_differ(pacs, capsys):
    (pacs / "photo" / "dog" / "0.png").unlink()

    assert main(["data", "verify", "PACS", "--data_dir", str(pacs.parent)]) == 1
    said = capsys.readouterr().out

    assert re.search(r"^dog +5 +5 +4 of 5 +5 +19 of 20$", said, re.MULTILINE)
    assert re.search(r"^all +10 +10 +9 of 10 +10 +39 of 40$", said, re.MULTILINE)


def test_json_has_the_keys_that_help_explains(pacs, capsys):
    assert main(["data", "verify", "PACS", "--data_dir", str(pacs.parent), "--format", "json"]) == 0
    values = json.loads(capsys.readouterr().out)
    with pytest.raises(SystemExit):
        main(["data", "verify", "--help"])
    explained = capsys.readouterr().out.split("keys of --format json:")[1]

    keys = [key for line in explained.splitlines() for key in line[:31].split()]
    assert sorted(values) == sorted(keys)
    assert values["right"] is True
    assert values["counts"]["photo"] == {"dog": 5, "house": 5}
    assert (values["version"], values["recognised_by"]) == ("PACS-40", "counts")


def test_every_kind_of_finding_is_in_the_help(capsys):
    with pytest.raises(SystemExit):
        main(["data", "verify", "--help"])
    said = capsys.readouterr().out

    source = "".join((Path(counts.__file__).parent / name).read_text() for name in ("verify.py", "findings.py"))
    kinds = set(re.findall(r'Finding\("([^"]+)"', source)) | set(re.findall(r'^    "([^"]+)": "', source, re.MULTILINE))
    assert len(kinds) > 12
    assert not {kind for kind in kinds if kind not in said}


def test_a_name_that_is_not_utf_8_can_be_printed(mine, capsys):
    (mine / "photo" / "dog" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"")

    assert main(["data", "verify", "Mine", "--data_dir", str(mine.parent)]) == 1
    assert r"photo/dog/caf\udce9.jpg" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["PACS"], "PACS needs --data_dir: the folder that holds PACS/art_painting/"),
        (["PCAS", "--data_dir", "."], "unknown dataset 'PCAS'; did you mean 'PACS'?"),
        (["Shapes"], "Shapes is not stored as environment/class/image"),
    ],
)
def test_a_name_that_cannot_be_verified_is_answered_with_a_remedy(arguments, sentence, capsys):
    assert main(["data", "verify", *arguments]) == 2
    assert sentence in capsys.readouterr().err
