"""The command ``predict``: from a kept run and image files to class probabilities."""

import csv
import io
import json
import shutil

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from PIL import Image
from support import quick_spec, run_quickly

from dg_batchformer.cli.main import main
from dg_batchformer.datasets import get_dataset_class
from dg_batchformer.wrappers.batchformer import BF

SKETCH = 3


@pytest.fixture
def images(kept_run, tmp_path):
    """Write the first evaluated images to files; return their folder and the predictions of the run."""
    environment = get_dataset_class("Shapes")(None, [SKETCH], {})[SKETCH]
    with np.load(kept_run / "predictions.npz") as arrays:
        rows = np.flatnonzero((arrays["env"] == SKETCH) & (arrays["split"] == "in"))[:5]
        indices, probabilities = arrays["image"][rows].astype(int).tolist(), arrays["probabilities"][rows]
    folder = tmp_path / "images"
    folder.mkdir()
    for place, pixels in enumerate(environment.load(indices).images):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{place}.png")
    return folder, probabilities


def _probabilities(text):
    return np.array([[float(value) for value in row[2:]] for row in list(csv.reader(io.StringIO(text)))[1:]])


def test_probabilities_are_those_of_the_runs_own_evaluation_without_its_wrappers(kept_run, images, capsys, monkeypatch):
    folder, expected = images
    monkeypatch.setattr(BF, "__init__", None)

    assert main(["predict", str(kept_run), str(folder), "--format", "csv", "--device", "cpu"]) == 0

    assert_allclose(_probabilities(capsys.readouterr().out), expected, atol=2e-6)


def test_bad_images_are_named_and_the_rest_predicted(kept_run, images, capsys):
    folder, expected = images
    (folder / "1.png").write_bytes(b"no image")
    missing = folder / "nothing*.png"

    given = [str(folder / "[0-2].png"), str(missing), str(folder / "4.png"), str(folder / "0.png")]
    assert main(["predict", str(kept_run), *given, "--format", "csv", "--device", "cpu"]) == 1

    said = capsys.readouterr()
    assert_allclose(_probabilities(said.out), expected[[0, 2, 4]], atol=2e-6)
    assert f"error: {folder / '1.png'} cannot be decoded as an image" in said.err
    assert f"error: {missing} does not exist" in said.err


def test_the_output_file_has_the_format_of_its_extension(kept_run, images, tmp_path, capsys):
    folder, expected = images
    file = tmp_path / "found.json"

    assert main(["predict", str(kept_run), str(folder), "--output", str(file), "--top", "2"]) == 0

    assert capsys.readouterr().out == f"wrote 5 predictions to {file}\n"
    found = json.loads(file.read_text())
    highest = np.sort(expected, axis=1)[:, :-3:-1]
    assert_allclose([list(one["probabilities"].values()) for one in found], highest, atol=2e-6)
    assert [one["prediction"] for one in found] == [next(iter(one["probabilities"])) for one in found]


def test_text_shows_the_three_most_probable_classes(kept_run, images, capsys):
    assert main(["predict", str(kept_run), str(images[0] / "0.png")]) == 0

    header, _, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["image", "prediction", "2.", "3."]
    assert row.count("%") == 3


def test_more_images_than_a_batch_are_prefetched_in_order(images):
    from dg_batchformer.models.images import read_images

    files = [images[0] / f"{place % 5}.png" for place in range(300)]

    read = [image for batch in read_images(files, 32, 64) for image in batch]

    assert [image.file for image in read] == files
    assert all(torch.equal(image.pixels, read[place % 5].pixels) for place, image in enumerate(read))


def test_runs_that_cannot_predict_are_refused_in_one_sentence(kept_run, images, tmp_path, capsys):
    image = str(images[0] / "0.png")
    shutil.copytree(kept_run, tmp_path / "torn")
    (tmp_path / "torn" / "model.pt").write_bytes((kept_run / "model.pt").read_bytes()[:900])
    run_quickly(quick_spec(steps=1), tmp_path / "toy")
    run_quickly(quick_spec(steps=1), tmp_path / "unkept", keep="none")

    for given, sentence in {
        (str(tmp_path / "torn"), image): "torn/model.pt is damaged: it differs from what its run wrote",
        (str(tmp_path / "toy"), image): "the model of ERM on Toy takes inputs of shape 8; give a run on color images",
        (str(tmp_path / "unkept"), image): "has no model.pt: train and sweep keep models only with --keep final",
        (str(kept_run), str(tmp_path / "nothing")): "nothing does not exist, and no file matches it",
        (str(kept_run), str(tmp_path / "toy")): "toy holds no images",
    }.items():
        assert main(["predict", *given]) == 2
        assert sentence in capsys.readouterr().err
