"""Kept models compute in the precision of their runs, or report another one."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from support import quick_spec, resolved, run_quickly

from dg_batchformer.cli.main import main
from dg_batchformer.datasets import get_dataset_class
from dg_batchformer.models.load import load_model
from dg_batchformer.models.precision import Precision, compute_as_runs
from dg_batchformer.storage.folders import RunFolder
from dg_batchformer.training import compute_mode
from dg_batchformer.training.augment import normalise

CPU, SKETCH = torch.device("cpu"), 3


@pytest.fixture(scope="module")
def run_in_bf16(tmp_path_factory):
    """Return the folder of a run with precision bf16, which every device accepts."""
    folder = RunFolder(tmp_path_factory.mktemp("bf16") / "run")
    small = {"backbone": "tiny", "batch_size": 8}
    asked = {"dataset": "Shapes", "protocol": "quick", "test_envs": (SKETCH,), "precision": "bf16", "steps": 4}
    run_quickly(resolved(**asked, hparams=small), folder.path, predictions=True)
    return folder


@pytest.fixture
def run_in_auto(run_in_bf16, tmp_path):
    """Return the same run with precision auto, on a device that supports bf16."""
    folder = RunFolder(tmp_path / "auto")
    shutil.copytree(run_in_bf16.path, folder.path)
    asked = {**json.loads(folder.spec_file.read_text()), "precision": "auto"}
    folder.spec_file.write_text(json.dumps(asked))
    torch.save({**torch.load(folder.model_file, weights_only=True), "spec": asked}, folder.model_file)
    folder.done_file.unlink()  # it holds digests of the files before
    return folder


def _precision(folder, *others):
    return compute_as_runs(load_model(folder, CPU), [folder, *others], CPU)


def test_predict_computes_in_the_precision_of_the_run(run_in_bf16, tmp_path, capsys):
    with np.load(run_in_bf16.predictions_file) as arrays:
        rows = np.flatnonzero((arrays["env"] == SKETCH) & (arrays["split"] == "in"))[:8]
        indices, expected = arrays["image"][rows].astype(int).tolist(), arrays["probabilities"][rows]
    environment = get_dataset_class("Shapes")(None, [SKETCH], {})[SKETCH]
    for place, pixels in enumerate(environment.load(indices).images):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(tmp_path / f"{place}.png")

    assert main(["predict", str(run_in_bf16.path), str(tmp_path), "--format", "csv", "--device", "cpu"]) == 0

    said = capsys.readouterr()
    found = np.array([[float(value) for value in row[2:]] for row in list(csv.reader(said.out.splitlines()))[1:]])
    pixels = environment.load(indices).images
    in_fp32 = load_model(run_in_bf16, CPU).algorithm.predict(normalise(pixels)).softmax(dim=1).numpy()
    assert np.abs(found - expected).mean() < np.abs(in_fp32 - expected).mean() / 4
    assert "note" not in said.err


def test_a_device_without_bf16_computes_a_run_that_took_it_by_auto_in_fp32_and_says_so(run_in_auto, monkeypatch):
    for has_bf16, used in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr("dg_batchformer.models.precision.has_bf16", lambda device, has=has_bf16: has)
        assert _precision(run_in_auto) == Precision(used, ("bf16",))

    assert _precision(run_in_auto).deviation == "computed in fp32, but trained and evaluated in bf16"


def test_a_run_in_tf32_is_computed_in_fp32_on_a_cpu_and_says_so(run_in_bf16, tmp_path):
    shutil.copytree(run_in_bf16.path, tmp_path / "tf32")
    records = (tmp_path / "tf32" / "results.jsonl").read_text()
    (tmp_path / "tf32" / "results.jsonl").write_text(records.replace('"precision": "bf16"', '"precision": "tf32"'))

    assert _precision(RunFolder(tmp_path / "tf32")).deviation == "computed in fp32, but trained and evaluated in tf32"


def test_runs_of_different_precision_are_computed_in_fp32(run_in_bf16, tmp_path):
    other = RunFolder(tmp_path / "other")
    run_quickly(quick_spec(steps=1), other.path)

    assert _precision(run_in_bf16, other) == Precision("fp32", ("bf16", "fp32"))


def test_a_run_without_records_is_computed_in_the_precision_of_its_spec(run_in_bf16, tmp_path):
    shutil.copytree(run_in_bf16.path, tmp_path / "bare")
    (tmp_path / "bare" / "results.jsonl").unlink()

    assert _precision(RunFolder(tmp_path / "bare")) == Precision("bf16", ("bf16",))


def test_auto_means_what_the_device_supports(monkeypatch):
    capabilities = {"avx512_bf16": False, "amx_bf16": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert not compute_mode.has_bf16(CPU)

    capabilities["amx_bf16"] = True
    assert compute_mode.has_bf16(CPU)
