"""Metrics of predictions, compared with their definitions, and their tables."""

import json

import numpy as np
import pytest
from support import quick_spec, run_quickly

from dg_batchformer.cli.main import main
from dg_batchformer.results import predictions
from dg_batchformer.results.metrics import balanced_accuracy, expected_calibration_error, worst_class_accuracy
from dg_batchformer.results.predictions import Predictions, read_predictions
from dg_batchformer.spec.manifest import manifest_content
from dg_batchformer.spec.sweep import Row, SweepSpec
from dg_batchformer.storage.folders import SweepFolder
from dg_batchformer.sweep.expand import expand


def _predictions(label, predicted, confidence=None):
    n = len(label)
    confidence = np.ones(n) if confidence is None else np.array(confidence)
    return Predictions(np.zeros(n, int), np.full(n, "in"), np.array(label), np.array(predicted), confidence)


def test_balanced_and_worst_class_accuracy_weight_classes_with_images_equally():
    """Class 1 has no images but is predicted; class 0 has a recall of 3/4, class 2 of 1/2."""
    predictions = _predictions([0, 0, 0, 0, 2, 2], [0, 0, 0, 1, 2, 1])

    assert balanced_accuracy(predictions) == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert worst_class_accuracy(predictions) == pytest.approx(1 / 2)


def test_calibration_error_is_the_weighted_gap_of_bins_that_include_their_upper_edge():
    """0.2 = 3/15 is in the third bin, with 0.15; 1.0 is in the last."""
    predictions = _predictions([0, 0, 0, 0], [0, 1, 0, 0], [0.2, 0.15, 0.9, 1.0])

    gaps = abs(1 / 2 - 0.175) * 2 / 4, abs(1 - 0.9) / 4, 0
    assert expected_calibration_error(predictions) == pytest.approx(sum(gaps))


def test_calibrated_confidence_has_no_calibration_error():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 1, 200_000)
    label = (rng.uniform(size=len(confidence)) > confidence).astype(int)

    assert expected_calibration_error(_predictions(label, np.zeros_like(label), confidence)) < 0.01


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Return a trained sweep of two rows, the second without predictions."""
    rows = (Row("ERM", "ERM"), Row("SWAD", "SWAD"), Row("late", "SD"))
    small = {"mlp_width": 16, "batch_size": 8}
    asked = SweepSpec("mine", ("Toy",), rows, "quick", 1, 1, ("D",), steps=6, checkpoint_freq=2, hparams=small)
    folder, runs = SweepFolder(tmp_path_factory.mktemp("metrics")), expand(asked)
    folder.write(manifest_content(asked, runs))
    for run in runs:
        run_quickly(run.spec, folder.run(run.spec.id).path, predictions=run.label != "late")
    return folder, {run.label: folder.run(run.spec.id) for run in runs}


@pytest.mark.parametrize("label", ["ERM", "SWAD"])
def test_predictions_are_those_of_the_returned_model(sweep, label):
    run = sweep[1][label]
    returned = json.loads(run.records_file.read_text().splitlines()[-1])

    predictions = read_predictions(run.predictions_file)

    for env, split in [(3, "in"), *((env, "out") for env in range(4))]:
        part = predictions.of(env, split)
        assert (part.label == part.predicted).mean() == pytest.approx(returned[f"env{env}_{split}_acc"])


def test_every_metric_has_a_table_and_missing_predictions_are_reported_with_their_flag(sweep, capsys):
    folder, runs = sweep
    predictions = read_predictions(runs["SWAD"].predictions_file).of(3, "in")

    for name, metric, title in (
        ("balanced", balanced_accuracy, "balanced test accuracy"),
        ("worst-class", worst_class_accuracy, "worst-class test accuracy"),
        ("ece", expected_calibration_error, "expected calibration error"),
    ):
        command = ["tables", str(folder.path), "--metric", name, "--selection", "training-domain"]
        assert main(command) == 0
        said = capsys.readouterr().out
        assert f"Toy: {title}" in said
        assert "late (D): 0 of 1 trials; 1 of 1 runs without a readable predictions.npz; train and sweep" in said
        assert main([*command, "--format", "json"]) == 0
        [table] = json.loads(capsys.readouterr().out)["sections"][0]["tables"]
        means = {row["label"]: row["cells"][0]["mean"] for row in table["rows"]}
        assert means["SWAD"] == pytest.approx(100 * metric(predictions))
        assert means["late"] is None
        best = min if name == "ece" else max
        marked = [row["label"] for row in table["rows"] if row["cells"][0]["mark"] == "best"]
        assert best(("ERM", "SWAD"), key=means.get) in marked


def test_options_for_accuracy_refuse_other_metrics(sweep, capsys):
    for flag in (["--published"], ["--compare_to", "ERM"], ["--expect"], ["--format", "domainbed"]):
        assert main(["tables", str(sweep[0].path), "--metric", "ece", *flag]) == 2
        assert "drop" in capsys.readouterr().err


def test_a_damaged_file_of_predictions_counts_as_none(tmp_path):
    run_quickly(quick_spec(steps=1), tmp_path, predictions=True)
    whole = (tmp_path / "predictions.npz").read_bytes()

    for content in (b"", whole[: len(whole) // 2], whole[:200] + bytes(300) + whole[500:], b"PK\x03\x04"):
        (tmp_path / "predictions.npz").write_bytes(content)
        assert read_predictions(tmp_path / "predictions.npz") is None


def test_predictions_that_unpack_to_too_many_bytes_are_ignored(tmp_path, monkeypatch):
    columns = {name: np.zeros(1000, np.int64) for name in ("env", "label", "predicted")}
    np.savez_compressed(file := tmp_path / "predictions.npz", **columns, split=["in"] * 1000, confidence=[0.0] * 1000)
    assert read_predictions(file) is not None

    monkeypatch.setattr(predictions, "TABLE", 10_000)

    assert read_predictions(file) is None
