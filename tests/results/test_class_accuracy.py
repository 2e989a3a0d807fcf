"""Accuracies on classes with many, medium and few training images: pooled, recorded, and in tables."""

import json
import re

import pytest
from support import quick_spec, run_quickly

from dg_batchformer.cli.main import main
from dg_batchformer.results.class_accuracy import recorded
from dg_batchformer.results.collection import CollectedRun
from dg_batchformer.results.evaluations import Evaluations
from dg_batchformer.results.metrics import METRICS, Measurements
from dg_batchformer.results.runs import RunRecords
from dg_batchformer.results.selection import Score
from dg_batchformer.spec.manifest import manifest_content
from dg_batchformer.spec.sweep import Row, SweepSpec
from dg_batchformer.storage.folders import State, SweepFolder
from dg_batchformer.sweep.expand import expand


def test_classes_are_pooled_by_hand():
    """Five classes: two with many training images, one of which is not in the split, and one never trained on."""
    by_class = [0.9, None, 0.5, 0.2, 0.0]

    found = recorded(2, "out", by_class, {"many": [0, 1], "medium": [], "few": [2, 3]})

    assert found == {
        "env2_out_many_acc": 0.9,
        "env2_out_few_acc": pytest.approx(0.35),
        "env2_out_balanced_acc": pytest.approx(0.4),
        "env2_out_worst_class_acc": 0.0,
        "env2_out_class0_acc": 0.9,
        "env2_out_class2_acc": 0.5,
        "env2_out_class3_acc": 0.2,
        "env2_out_class4_acc": 0.0,
    }


def test_metrics_are_read_from_the_record_of_the_step_selected():
    same = {"env0_in_acc": 0.5, "env1_out_acc": 0.5, "env0_in_many_acc": 0.9}
    same |= {"env1_out_few_acc": 0.8, "env1_out_many_acc": 1.0}
    records = [{**same, "step": step, "args": {}, "env0_in_few_acc": few} for step, few in ((0, 0.1), (4, 0.6))]
    run = CollectedRun("ERM", "Toy", "ERM", (0,), 0, 0, State.DONE, RunRecords({}, Evaluations.of(records)))

    few, gap, medium = (
        Measurements(METRICS[name]).score(Score(0.5, 0.5, 4), run, 0) for name in ("few", "few-many", "medium")
    )

    assert (few.test, few.in_domain) == (0.6, 0.8)
    assert (gap.test, gap.in_domain) == (pytest.approx(-0.3), pytest.approx(-0.2))
    assert medium is None


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Return a trained sweep on two imbalances; of its three classes two have medium and one has few images."""
    rows = (Row("ERM", "ERM"), Row("BSoftmax", "BSoftmax"))
    small = {"mlp_width": 16, "batch_size": 8}
    asked = SweepSpec("mine", ("Toy",), rows, "quick", 2, 1, ("D",), steps=6, checkpoint_freq=5, hparams=small,
                      imbalance=("step:4", "step:8", "natural"))  # fmt: skip
    folder, runs = SweepFolder(tmp_path_factory.mktemp("imbalance")), expand(asked)
    folder.write(manifest_content(asked, runs))
    for run in runs:
        run_quickly(run.spec, folder.run(run.spec.id).path)
    return folder, runs


def test_records_hold_counts_and_accuracies_by_class(sweep):
    folder, runs = sweep
    [run] = [run for run in runs if run.label == "ERM" and run.spec.trial_seed == 0 and run.spec.test_envs == (3,)
             and str(run.spec.imbalance) == "step:4"]  # fmt: skip
    last = json.loads(folder.run(run.spec.id).records_file.read_text().splitlines()[-1])

    assert set(last["class_counts"]) == {"A", "B", "C"}
    for counts in last["class_counts"].values():
        low, _, high = sorted(counts.values())
        assert high // 4 == low
    assert last["shots"]["thresholds"] == {"many": 100, "few": 20}
    assert last["args"]["imbalance"] == "step:4"
    by_class = [last[f"env3_in_class{label}_acc"] for label in range(3)]
    few = [by_class[list(last["class_counts"]["A"]).index(name)] for name in last["shots"]["few"]]
    assert last["env3_in_few_acc"] == pytest.approx(sum(few) / len(few))
    assert last["env3_in_worst_class_acc"] == min(by_class)


def test_a_run_without_imbalance_records_what_it_did(tmp_path):
    run_quickly(quick_spec(steps=1), tmp_path)
    record = json.loads((tmp_path / "results.jsonl").read_text())

    assert "imbalance" not in record["args"]
    assert not [key for key in record if "class" in key or "shots" in key or "balanced_acc" in key]


def test_tables_and_comparisons_are_of_few_shot_classes_and_of_every_imbalance(sweep, capsys):
    path = str(sweep[0].path)

    assert main(["tables", path, "--metric", "few", "--by_class", "--selection", "training-domain"]) == 0
    said = capsys.readouterr().out
    assert "Toy, step:4: few-shot test accuracy" in said
    assert "Toy, natural: few-shot test accuracy" in said
    assert "Toy, step:4, by class" in said
    assert "more than 100 training images on average over training environments, few-shot classes fewer than 20" in said

    assert main(["tables", path, "--metric", "many", "--selection", "training-domain"]) == 0
    assert "0 of 2 trials; 2 of 2 runs without accuracies by class, which runs with an imbalance" in " ".join(
        capsys.readouterr().out.split()
    )

    assert main(["compare", "ERM", "BSoftmax", path, "--metric", "balanced"]) == 0
    assert (
        "in balanced test accuracy, on average over 1 environment of Toy in 3 settings (step:4"
        in capsys.readouterr().out
    )


def test_a_table_by_class_averages_only_trials_that_have_every_environment(tmp_path, capsys):
    small = {"mlp_width": 16, "batch_size": 8}
    asked = SweepSpec("mine", ("Toy",), (Row("ERM", "ERM"),), "quick", 2, 1, ("A", "D"), steps=1, hparams=small,
                      imbalance=("step:4",))  # fmt: skip
    folder, runs = SweepFolder(tmp_path / "mine"), expand(asked)
    folder.write(manifest_content(asked, runs))
    for run in runs[:3]:
        run_quickly(run.spec, folder.run(run.spec.id).path)

    words = ["--by_class", "--format", "json", "--selection", "training-domain", "--unfinished"]
    assert main(["tables", str(folder.path), *words]) == 0
    [section] = json.loads(capsys.readouterr().out)["sections"]
    [table] = [table for table in section["tables"] if table["title"] == "Toy, step:4, by class"]
    [row] = table["rows"]

    assert {cell["n"] for cell in row["cells"] if cell["mean"] is not None} == {1}


@pytest.mark.system
def test_the_report_has_a_table_by_class_and_a_figure_by_class_frequency(sweep):
    path = sweep[0].path
    assert main(["report", str(path), "--output", f"{path}/report.html"]) == 0
    page = (path / "report.html").read_text()
    assert "Toy, step:4, by class" in page
    assert re.search(r"Toy, step, [^:]+: Accuracy by class frequency of 2 rows", page)
