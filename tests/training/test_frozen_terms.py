"""Methods whose terms only train the featurizer say so where it is frozen."""

from pathlib import Path

import pytest
import torch
import yaml

from dg_batchformer.cli.main import main
from dg_batchformer.networks import Featurizer

NOTE = "terms that train the featurizer only, which is frozen, so"


@pytest.fixture
def frozen(tmp_path, monkeypatch, image_folder):
    """Return hparams that freeze the tiny featurizer; the working directory has data."""
    monkeypatch.chdir(tmp_path)
    torch.save(Featurizer((3, 32, 32), {"backbone": "tiny", "weights": "none"}).state_dict(), "weights.pth")
    return {"image_size": 32, "batch_size": 4, "backbone": "tiny", "weights": "weights.pth", "freeze": "featurizer"}


@pytest.mark.parametrize(("algorithm", "says"), [("CORAL+BF", True), ("ERM", False)])
def test_a_run_says_that_a_method_has_nothing_to_train(algorithm, says, frozen, image_folder, capsys):
    settings = [f"{name}={value}" for name, value in frozen.items()]
    command = ["train", "--algorithm", algorithm, "--dataset", "PACS", "--data_dir", str(image_folder())]
    command += ["--test_envs", "sketch", "--protocol", "quick", "--steps", "2", "--output_dir", "out"]

    assert main([*command, "--set", *settings]) == 0
    said = capsys.readouterr().out
    assert said.count(f"note: CORAL adds {NOTE} it trains like ERM from another seed; freeze less of it") == says


def test_a_sweep_says_once_which_methods_have_nothing_to_train_and_its_tables_repeat_it(frozen, image_folder, capsys):
    sweep = {"datasets": ["PACS"], "algorithms": ["ERM", "CORAL", "MMD", "MMD+BF"], "test_envs": ["sketch"]}
    sweep |= {"protocol": "quick", "steps": 2, "trials": 1, "hparams": frozen}
    Path("mine.yaml").write_text(yaml.safe_dump(sweep))

    assert main(["sweep", "mine.yaml", "--data_dir", str(image_folder()), "--devices", "cpu"]) == 0
    assert capsys.readouterr().out.count(f"CORAL, MMD add {NOTE} they train like ERM from other seeds") == 1
    assert main(["tables", "results/mine", "--selection", "training-domain"]) == 0
    assert "CORAL, MMD, MMD+BF: equivalent to ERM with a different seed" in capsys.readouterr().out
