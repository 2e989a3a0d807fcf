"""Soups (means of weights with a common start): arithmetic, command, and rows in tables."""

import json
import shutil

import pytest
import torch
from support import Silence, quick_spec, resolved, run_quickly
from torch import nn
from torch.testing import assert_close

from dg_batchformer.algorithms import Algorithm
from dg_batchformer.cli.main import main
from dg_batchformer.datasets import get_dataset_class
from dg_batchformer.hparams_registry import resolve_hparams
from dg_batchformer.models.load import KeptModel, load_model
from dg_batchformer.models.make_soups import Setting
from dg_batchformer.models.precision import Precision
from dg_batchformer.models.soup import greedy_soup, uniform_soup
from dg_batchformer.networks import Featurizer
from dg_batchformer.spec.manifest import manifest_content
from dg_batchformer.spec.sweep import Row, SweepSpec
from dg_batchformer.storage.digests import mark_done
from dg_batchformer.storage.folders import RunFolder, SweepFolder
from dg_batchformer.sweep.expand import expand
from dg_batchformer.training.data_path import open_loader
from dg_batchformer.training.sampling import training_inputs

CPU = torch.device("cpu")
STATES = [{"w": torch.tensor([value, 1.0]), "count": torch.tensor(7 + value, dtype=torch.long)} for value in (0, 4, 8)]


def test_a_uniform_soup_is_the_mean_of_all_weights_and_keeps_counters():
    soup = uniform_soup(3, STATES.__getitem__)

    assert_close(dict(soup.state), {"w": torch.tensor([4.0, 1.0]), "count": torch.tensor(7)})
    assert soup.members == [0, 1, 2]


def test_a_greedy_soup_starts_with_the_best_and_adds_models_that_do_not_lower_it():
    """Values nearer to 6 are better: 4 and 8 average to it, and 0 leads away from it."""
    soup = greedy_soup([0.2, 0.9, 0.5], STATES.__getitem__, lambda state: 1 - 0.1 * abs(state["w"][0].item() - 6))

    assert_close(soup.state["w"], torch.tensor([6.0, 1.0]))
    assert soup.members == [1, 2]


def test_a_greedy_soup_that_nothing_improves_is_the_best_model_itself():
    soup = greedy_soup([0.2, 0.9, 0.5], STATES.__getitem__, lambda state: 0.8999)

    assert soup == (STATES[1], [1])


ROWS = (Row("ERM", "ERM"), Row("SWAD+BF", "SWAD+BF"))


def _sweep(path, init, rows=ROWS, **given):
    small = {"mlp_width": 16, "init": init}
    asked = SweepSpec(
        "mine", ("Toy",), rows, "quick", 1, 3, ("D",), steps=12, checkpoint_freq=6, hparams=small, **given
    )
    folder, runs = SweepFolder(path), expand(asked)
    folder.write(manifest_content(asked, runs))
    for run in runs:
        run_quickly(run.spec, folder.run(run.spec.id).path)
    return folder


@pytest.fixture(scope="module")
def related(tmp_path_factory):
    """Return a trained sweep whose draws share a linear probe, with its soups."""
    folder = _sweep(tmp_path_factory.mktemp("soup") / "mine", "linear_probe")
    assert main(["soup", str(folder.path), "--device", "cpu"]) == 0
    return folder


def _soups(folder):
    soups = {}
    for path in folder.soups.iterdir():
        soup = json.loads((path / "soup.json").read_text())
        [record] = map(json.loads, (path / "results.jsonl").read_text().splitlines())
        soups[soup["label"]] = RunFolder(path), soup, record
    return soups


def _validation(record):
    return sum(record[f"env{env}_out_acc"] for env in range(3)) / 3


@pytest.mark.parametrize("row", ["ERM", "SWAD+BF"])
def test_soups_are_runs_of_their_own_that_load_as_the_mean_of_their_members(related, row):
    for kind in ("uniform", "greedy"):
        folder, soup, _ = _soups(related)[f"{row} soup-{kind}"]
        members = [load_model(related.run(name), CPU).predictor.state_dict() for name in soup["members"]]

        means = {name: torch.stack([state[name] for state in members]).mean(dim=0) for name in members[0]}
        assert_close(dict(load_model(folder, CPU).predictor.state_dict()), means)
        assert len(members) == 3 or kind == "greedy"


@pytest.mark.parametrize("row", ["ERM", "SWAD+BF"])
def test_a_greedy_soup_validates_no_worse_than_its_best_member(related, row):
    _, soup, record = _soups(related)[f"{row} soup-greedy"]
    runs = [path for path in related.runs.iterdir() if row == _row(path)]
    singles = [json.loads((path / "results.jsonl").read_text().splitlines()[-1]) for path in runs]

    assert len(singles) == soup["offered"] == 3
    assert _validation(record) >= max(map(_validation, singles)) - 1e-9


def _row(path):
    return {"ERM": "ERM", "BF+SWAD": "SWAD+BF"}[json.loads((path / "spec.json").read_text())["algorithm"]]


def test_tables_show_soups_as_rows(related, capsys):
    assert main(["tables", str(related.path), "--format", "json", "--selection", "training-domain"]) == 0
    [table] = json.loads(capsys.readouterr().out)["sections"][0]["tables"]
    shown = {row["label"]: row["cells"][0]["mean"] for row in table["rows"]}

    expected = {label: 100 * record["env3_in_acc"] for label, (_, _, record) in _soups(related).items()}
    assert list(shown)[:2] == ["ERM", "SWAD+BF"]
    assert {label: shown[label] for label in expected} == pytest.approx(expected)

    assert main(["tables", str(related.path), "--selection", "training-domain", "--metric", "ece"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert all(" X" not in row for row in rows if row.startswith(tuple(expected)))


def test_draws_that_trained_on_different_environments_share_no_soup(tmp_path, capsys):
    folder = _sweep(tmp_path / "sources", "linear_probe", ROWS[:1], train_envs=(("A",), ("A", "B", "C")))

    assert main(["soup", str(folder.path), "--kind", "uniform", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "ERM on Toy/D from A, trial 0: soup-uniform of 3 of 3 models" in said
    assert "ERM on Toy/D, trial 0: soup-uniform of 3 of 3 models" in said
    assert main(["tables", str(folder.path), "--format", "json", "--selection", "training-domain"]) == 0
    tables = json.loads(capsys.readouterr().out)["sections"][0]["tables"]
    for table, source in zip(tables, ("Toy from A", "Toy from A + B + C"), strict=False):
        assert (table["title"], [row["label"] for row in table["rows"]]) == (source, ["ERM", "ERM soup-uniform"])
        assert all(row["cells"][0]["mean"] is not None for row in table["rows"])


def test_models_that_cannot_form_a_soup_are_refused_in_one_sentence(related, tmp_path, capsys):
    unrelated = _sweep(tmp_path / "unrelated", "none", ROWS[:1])
    bare = tmp_path / "bare"
    shutil.copytree(related.path, bare)
    for file in bare.glob("runs/*/model.pt"):
        file.unlink()

    damaged = tmp_path / "damaged"
    shutil.copytree(related.path, damaged)
    for file in damaged.glob("runs/*/model.pt"):
        content = torch.load(file, weights_only=True)
        if content["spec"]["hparams_seed"] == 2:
            torch.save({**content, "predictor": {"w": torch.zeros(1)}}, file)
            mark_done(RunFolder(file.parent), {"outcome": "done"})

    for given, sentence in {
        (str(damaged),): "the model of ERM cannot be rebuilt",
        (str(unrelated.path), "--row", "ERM"): "ERM on Toy/D, trial 0: its 3 models started from 3 different initial",
        (str(bare),): "holds no kept models; run its sweep with --keep final",
        (str(related.path), "--row", "ERN"): "unknown row of",
        (str(tmp_path),): "is not a sweep folder",
    }.items():
        assert main(["soup", *given, "--device", "cpu"]) == 2
        assert sentence in capsys.readouterr().err
    assert not unrelated.soups.exists()


def test_runs_start_from_an_init_file_and_one_that_does_not_fit_is_refused(related, tmp_path, capsys):
    file = next(related.runs.glob("*/model.pt"))
    spec = quick_spec(steps=1, hparams={"init": str(file), "lr": 0.0})

    run_quickly(spec, tmp_path / "run")

    begun = load_model(RunFolder(tmp_path / "run"), CPU).predictor.state_dict()
    assert_close(dict(begun), torch.load(file, weights_only=True)["predictor"])
    small = ["--dataset", "Toy", "--protocol", "quick", "--steps", "1"]
    for place, (init, sentence) in enumerate(
        {
            file: "does not fit ERM: ",
            "nowhere": "hparam init is 'nowhere', but there is no such file",
        }.items()
    ):
        asked = ["--hparams", json.dumps({"init": str(init)}), "--output_dir", str(tmp_path / str(place))]
        assert main(["train", *small, *asked]) == 2
        assert sentence in capsys.readouterr().err


def test_a_frozen_prefix_keeps_its_statistics_in_a_soup(image_folder, tmp_path):
    source = Featurizer((3, 32, 32), {"backbone": "resnet18", "weights": "none", "resnet_dropout": 0.0})
    torch.save(source.network.state_dict(), tmp_path / "weights.pth")
    hparams = {"backbone": "resnet18", "weights": str(tmp_path / "weights.pth"), "image_size": 32, "batch_size": 4}
    hparams |= {"freeze": "layer1", "freeze_bn": False}
    asked = {"dataset": "PACS", "test_envs": (3,), "protocol": "quick", "steps": 1}
    data_dir = image_folder()
    run_quickly(resolved(hparams=hparams, **asked), tmp_path / "run", data_dir=data_dir)
    model = load_model(RunFolder(tmp_path / "run"), CPU)
    before = {name: value.clone() for name, value in model.predictor.state_dict().items()}
    spec, full = model.spec, resolve_hparams(model.spec)
    dataset = get_dataset_class("PACS")(data_dir, [3], full)

    with open_loader(spec, full, dataset, CPU, Silence()) as source:
        setting = Setting(model, Precision("fp32", ("fp32",)), dataset, source, CPU)
        after = setting.with_weights(before, averaged=True).predictor.state_dict()

    assert_close(after["0.network.bn1.running_mean"], before["0.network.bn1.running_mean"])
    assert not torch.equal(after["0.network.layer2.0.bn1.running_mean"], before["0.network.layer2.0.bn1.running_mean"])


def test_live_batch_norm_of_a_mean_is_re_estimated_and_that_of_a_single_model_kept():
    spec, hparams = quick_spec(steps=3), {"batch_size": 8, "class_balanced": False}
    dataset = get_dataset_class("Toy")(None, [3], hparams)
    algorithm = Algorithm((8,), 3, 3, hparams)
    algorithm.network = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    model = KeptModel(spec, hparams, dataset.classes, (8,), "", algorithm)
    state = {**algorithm.network.state_dict(), "1.running_mean": torch.full((4,), 9.0)}

    with open_loader(spec, hparams, dataset, CPU, Silence()) as source, torch.no_grad():
        setting = Setting(model, Precision("fp32", ("fp32",)), dataset, source, CPU)
        inputs = training_inputs(setting.sampler, source, spec, CPU)
        expected = torch.stack([algorithm.network[0](x).mean(dim=0) for x in inputs]).mean(dim=0)
        single = setting.with_weights(state, averaged=False).predictor[1].running_mean.clone()
        mean = setting.with_weights(state, averaged=True).predictor[1].running_mean

    assert_close(single, state["1.running_mean"])
    assert_close(mean, expected)
