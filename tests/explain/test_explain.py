"""The command ``explain``: from a kept run to pictures, tables and words."""

import shutil
from xml.etree import ElementTree

import pandas as pd
import pytest
import torch
from PIL import Image
from support import TRAINED, make_algorithm, make_minibatches, quick_spec, resolved, run_quickly
from torch.testing import assert_close

from dg_batchformer.cli.main import main
from dg_batchformer.explain.load import load_kept
from dg_batchformer.networks.batchformer import batchformers
from dg_batchformer.spec.imbalance import Imbalance, Thresholds
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.storage.folders import RunFolder, SweepFolder, write_json
from dg_batchformer.training.export import keep_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the folder of a run with a kept model."""
    path = tmp_path_factory.mktemp("explain") / "run"
    small = ["--hparams", '{"mlp_width": 16, "batch_size": 8, "bf_layers": 2}', "--steps", "3", "--device", "cpu"]
    command = ["train", "--dataset", "Toy", "--algorithm", "SWAD+CORAL+BF", "--protocol", "quick", "--test_envs", "D"]
    assert main([*command, *small, "--output_dir", str(path)]) == 0
    return path


def test_a_kept_run_is_explained_in_pictures_tables_and_words(run, tmp_path, capsys):
    assert main(["explain", str(run), "--output", str(tmp_path)]) == 0

    said = capsys.readouterr().out
    assert (tmp_path / "summary.txt").read_text() in said
    for words in (
        "SWAD+CORAL+BF on Toy: trained on A, B, C; D unseen",
        "32 batches of 4 x 8 held-out images; BatchFormer in evaluation mode",
        "attention of layer 2: a sample gives ",
        "without BatchFormer exactly 0",
        "note: the features are those of the averaged model",
    ):
        assert words in said
    for picture in ("attention", "gradients", "features"):
        with Image.open(tmp_path / f"{picture}.png") as image:
            assert image.width > 1000
        assert ElementTree.parse(tmp_path / f"{picture}.svg").getroot().tag.endswith("svg")
    tables = {file.stem: pd.read_csv(file) for file in tmp_path.glob("*.csv")}
    assert {name: list(table.columns) for name, table in tables.items()} == {
        "attention_by_relation": ["layer", "relation", "relative_attention", "standard_error", *_SHARES],
        "attention_by_domain": ["layer", "domain", "attends_to", "relative_attention", "pairs"],
        "attention_by_class": ["layer", "class", "attends_to", "relative_attention", "pairs"],
        "gradients_by_relation": ["stream", "relation", "mean_abs_gradient", "standard_error", *_SHARES],
        "gradients_by_domain": ["stream", "loss_of_domain", "features_of", "mean_abs_gradient", "pairs"],
        "gradients_by_class": ["stream", "loss_of_class", "features_of", "mean_abs_gradient", "pairs"],
        "features": ["domain", "unseen", "index", "class", *_POINTS],
        "features_variance": ["stream", "pc1", "pc2", "between_domains", "between_classes"],
    }
    assert set(tables["attention_by_domain"]["layer"]) == {1, 2}
    assert_close(tables["attention_by_relation"].groupby("layer")["share"].sum().tolist(), [1.0, 1.0])
    assert set(tables["features"].query("unseen")["domain"]) == {"D"}


def test_a_run_that_leaves_environments_out_is_explained_on_those_that_it_has(tmp_path, capsys):
    path = tmp_path / "run"
    run_quickly(quick_spec(algorithm="BF", steps=1, train_envs=("B", "D"), test_envs=("C",)), path)
    capsys.readouterr()

    assert main(["explain", str(path), "--output", str(tmp_path)]) == 0
    assert "trained on B, D; C unseen\n32 batches of 3 x " in capsys.readouterr().out
    points = pd.read_csv(tmp_path / "features.csv")
    assert set(zip(points["domain"], points["unseen"], strict=True)) == {("B", False), ("C", True), ("D", False)}
    attention = pd.read_csv(tmp_path / "attention_by_domain.csv")
    assert set(attention["domain"]) == set(attention["attends_to"]) == {"B", "C", "D"}
    assert (attention["pairs"] > 0).all()


def test_a_run_with_an_imbalance_is_explained_by_the_frequency_of_classes(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Imbalance, "thresholds", lambda *_: Thresholds(many=20, few=10))
    run_quickly(quick_spec(algorithm="BF", steps=1, test_envs=("D",), imbalance="long_tail:4"), tmp_path / "run")

    assert main(["explain", str(tmp_path / "run"), "--output", str(tmp_path)]) == 0

    assert "attention by frequency: a sample of a few-shot class (1) gives " in capsys.readouterr().out
    found = pd.read_csv(tmp_path / "attention_by_frequency.csv")
    by_class = pd.read_csv(tmp_path / "attention_by_class.csv")
    assert list(found.columns) == ["layer", "classes", "attends_to", "domain", "relative_attention", "pairs"]
    few = found.query("classes == 'few' and attends_to == 'many'")
    mean = (few["relative_attention"] * few["pairs"]).sum() / few["pairs"].sum()
    [expected] = by_class.query("`class` == 1 and attends_to == 0")["relative_attention"]
    assert mean == pytest.approx(expected)
    assert set(few["domain"]) == {"same", "other"}


_SHARES = ["share", "uniform_share", "pairs"]
_POINTS = ["plain_pc1", "plain_pc2", "batchformer_pc1", "batchformer_pc2"]


@pytest.mark.parametrize("base", TRAINED)
def test_features_logits_and_batchformer_are_recorded_for_any_algorithm(base, tmp_path):
    spec = resolved(dataset="Toy", algorithm=f"{base}+BF", test_envs=(3,), hparams={"mlp_width": 16})
    algorithm, minibatches = make_algorithm(f"{base}+BF", dataset="Toy"), make_minibatches(dataset="Toy")
    algorithm.update(minibatches)
    algorithm.eval()
    write_json(RunFolder(tmp_path).spec_file, spec.as_dict())
    keep_model(RunFolder(tmp_path), algorithm, spec, algorithm.hparams, _Toy)
    x = minibatches[0][0]

    kept = load_kept(RunFolder(tmp_path), CPU)

    assert_close(kept.logits(kept.features(x)), algorithm.predict(x))
    attended = batchformers(algorithm)[0].eval()
    assert_close(kept.batchformer.state_dict(), attended.state_dict())
    z = kept.features(x)[None]
    assert_close(kept.batchformer(z), attended(z))


class _Toy:
    input_shape, num_classes, classes = (8,), 3, ["0", "1", "2"]


def test_an_algorithm_that_forwards_domains_one_by_one_attends_within_them(tmp_path):
    run_quickly(quick_spec(algorithm="MLDG+BF", steps=1), tmp_path)

    assert load_kept(RunFolder(tmp_path), CPU).batchformer.scope == "per_domain"


def _refusal(path, capsys):
    capsys.readouterr()
    assert main(["explain", str(path)]) == 2
    return capsys.readouterr().err


def test_missing_files_are_reported_with_the_flag_that_keeps_them(run, tmp_path, capsys):
    lacking = shutil.copytree(run, tmp_path / "run")
    RunFolder(lacking).batchformer_file.unlink()
    SweepFolder(tmp_path / "sweep").write({})

    assert f"{tmp_path / 'nowhere'} is not a run folder: it has no spec.json" in _refusal(tmp_path / "nowhere", capsys)
    assert "has no batchformer.pt: train and sweep keep models only with --keep final" in _refusal(lacking, capsys)
    assert "is a sweep folder; give the folder of one of its runs" in _refusal(tmp_path / "sweep", capsys)


def test_an_unfinished_run_is_reported_as_unfinished(run, tmp_path, capsys):
    path = shutil.copytree(run, tmp_path / "run")
    folder = RunFolder(path)
    for file in (folder.model_file, folder.batchformer_file, folder.done_file):
        file.unlink()
    folder.checkpoint_file.touch()

    assert (
        "has no model.pt and no batchformer.pt yet: its run is interrupted; with train --keep final, it keeps"
        in _refusal(path, capsys)
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"algorithm": "SWAD"}, "holds a run of SWAD, which has no BatchFormer; train SWAD+BF"),
        ({"hparams": {"bf_layers": 0}}, "holds a control: bf_layers is 0, so nothing attends"),
        ({"hparams": {"bf_scope": "sample"}}, "bf_scope is sample, so a sample attends only to itself"),
        ({"hparams": {"bf_loss_weight": 0.0}}, "bf_loss_weight is 0, so BatchFormer was never trained"),
    ],
)
def test_a_run_without_batchformer_is_refused_with_the_reason(given, said, tmp_path, capsys):
    run_quickly(quick_spec(**{"algorithm": "BF", "steps": 1, **given}), tmp_path)

    assert said in _refusal(tmp_path, capsys)


def test_files_that_are_truncated_or_of_another_run_are_refused(run, tmp_path, capsys):
    path = shutil.copytree(run, tmp_path / "run")
    folder = RunFolder(path)
    whole = folder.model_file.read_bytes()
    folder.model_file.write_bytes(whole[: len(whole) // 2])
    assert "model.pt is damaged: it differs from what its run wrote" in _refusal(path, capsys)
    write_json(folder.done_file, {"outcome": "done"})  # as in older versions, without digests
    assert "model.pt cannot be read (" in _refusal(path, capsys)

    folder.model_file.write_bytes(whole)
    spec = RunSpec.from_dict(torch.load(folder.model_file, weights_only=True)["spec"])
    write_json(folder.spec_file, {**spec.as_dict(), "trial_seed": 7})
    assert "and the spec.json beside it are of different runs" in _refusal(path, capsys)

    folder.spec_file.write_text("[")
    assert "spec.json cannot be read" in _refusal(path, capsys)


def test_data_of_other_classes_is_refused(image_folder, tmp_path, capsys):
    hparams = {"backbone": "tiny", "image_size": 16, "batch_size": 4}
    spec = resolved(dataset="PACS", algorithm="BF", protocol="quick", steps=1, hparams=hparams)
    data_dir = image_folder()
    run_quickly(spec, tmp_path / "run", data_dir=data_dir)
    for folder in data_dir.glob("PACS/*/dog"):
        folder.rename(folder.with_name("cat"))

    assert main(["explain", str(tmp_path / "run"), "--data_dir", str(data_dir)]) == 2

    said = capsys.readouterr().err
    assert "PACS has the classes cat, house here, but the run was trained on dog, house; give the --data_dir" in said
