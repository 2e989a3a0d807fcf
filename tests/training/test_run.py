import json
from math import isnan

import pytest
import torch
from support import Silence, quick_spec, run_quickly

from dg_batchformer.algorithms import get_algorithm_class
from dg_batchformer.errors import InputError
from dg_batchformer.spec import RunSpec
from dg_batchformer.store import RunFolder, State


def _lines(path):
    return [json.loads(line) for line in RunFolder(path).records_file.read_text().splitlines()]


def test_records_have_domainbeds_keys_and_ours(tmp_path):
    run_quickly(quick_spec(algorithm="SWAD+BF", test_envs=(1,)), tmp_path)

    lines = _lines(tmp_path)
    last, final = lines[-2], lines[-1]

    assert [line["step"] for line in lines] == [0, 4, 8, 12, 13]
    accuracies = {"env1_in_acc", *(f"env{env}_out_acc" for env in range(4))}
    losses = {f"env{env}_out_loss" for env in (0, 2, 3)}
    domainbeds = {"step", "epoch", "loss", "step_time", "mem_gb", "args", "hparams"}
    ours = {"environments", "protocol", "dataset_fingerprint", "device", "threads", "versions", "format"}
    assert set(last) == accuracies | losses | domainbeds | ours
    assert last["epoch"] == 12 / (96 / 8)
    assert last["args"]["test_envs"] == [1]
    assert json.loads(last["args"]["hparams"]) == {"batch_size": 8, "mlp_width": 16}
    assert final["final"] is True
    assert final["averaged_to"] == 12


def test_evaluate_all_adds_the_images_trained_on_and_changes_nothing_else(tmp_path):
    for evaluate in ("needed", "all"):
        run_quickly(quick_spec(evaluate=evaluate), tmp_path / evaluate)
    needed, everything = _lines(tmp_path / "needed"), _lines(tmp_path / "all")

    extra = {f"env{env}_in_acc" for env in range(3)}
    for a, b in zip(needed, everything, strict=True):
        assert set(b) - set(a) == extra
        assert a["loss"] == b["loss"]
        assert a["env3_in_acc"] == b["env3_in_acc"]


def test_erm_and_erm_bf_share_data_and_base_initialisation(tmp_path):
    for name in ("ERM", "ERM+BF"):
        run_quickly(quick_spec(algorithm=name, steps=1, hparams={"lr": 0.0}), tmp_path / name)
    erm, bf = (_lines(tmp_path / name)[0] for name in ("ERM", "ERM+BF"))

    assert {key: erm[key] for key in erm if key.endswith("_acc")} == {
        key: bf[key] for key in bf if key.endswith("_acc")
    }


def test_a_diverging_run_ends_as_diverged_and_writes_nan_as_domainbed(tmp_path):
    state = run_quickly(quick_spec(hparams={"lr": 1e30}), tmp_path)

    assert state is State.DIVERGED
    assert RunFolder(tmp_path).state() is State.DIVERGED
    assert "NaN" in RunFolder(tmp_path).records_file.read_text()
    assert isnan(_lines(tmp_path)[-1]["env0_out_loss"])


def test_a_kept_model_rebuilds_the_prediction_without_batchformer(tmp_path):
    run_quickly(quick_spec(algorithm="SWAD+CORAL+BF"), tmp_path)
    kept = torch.load(RunFolder(tmp_path).model_file, weights_only=True)

    rebuilt = get_algorithm_class("CORAL")(
        kept["input_shape"], kept["num_classes"], kept["num_domains"], kept["hparams"]
    )
    rebuilt.predictor.load_state_dict(kept["predictor"], strict=False)
    spec = RunSpec.from_dict(kept["spec"])

    assert spec.algorithm == "BF+CORAL+SWAD"
    assert not any("batchformer" in name for name in kept["predictor"])
    encoder = torch.load(RunFolder(tmp_path).batchformer_file, weights_only=True)["batchformer"]
    assert len(encoder) == 12


def test_keep_best_keeps_the_model_that_validates_best(tmp_path):
    watcher = Silence()
    run_quickly(quick_spec(), tmp_path / "best", keep="best", watcher=watcher)
    run_quickly(quick_spec(), tmp_path / "none", keep="none")

    assert RunFolder(tmp_path / "best").model_file.exists()
    assert not RunFolder(tmp_path / "none").model_file.exists()


def test_an_environment_smaller_than_a_batch_is_sampled_with_replacement_and_noted_once(tmp_path):
    watcher = Silence()
    run_quickly(RunSpec(dataset="Debug28", steps=2, hparams={"backbone": "tiny"}), tmp_path, watcher=watcher)

    assert len([note for note in watcher.notes if "fewer than a batch of 64: images repeat" in note]) == 2


def test_class_balanced_sampling_draws_classes_equally_often(image_folder, tmp_path):
    root = image_folder(n=12)
    for file in sorted((root / "PACS" / "photo" / "dog").iterdir())[3:]:
        file.unlink()
    hparams = {
        "backbone": "tiny",
        "image_size": 8,
        "class_balanced": True,
        "batch_size": 400,
        "data_augmentation": False,
    }
    spec = RunSpec(dataset="PACS", protocol="quick", steps=1, test_envs=[0], hparams=hparams)

    from dg_batchformer.datasets import get_dataset_class
    from dg_batchformer.hparams_registry import resolve_hparams
    from dg_batchformer.training.sampling import Sampler, split_environments

    dataset = get_dataset_class("PACS")(root, [0], resolve_hparams(spec))
    sampler = Sampler(spec, resolve_hparams(spec), dataset, split_environments(spec, dataset))
    request = sampler._task(0)[1]
    labels = [dataset[request.env].labels[index] for index in request.indices]

    assert request.env == 2
    assert 160 < sum(labels) < 240


def test_images_train_through_the_worker_pool(image_folder, tmp_path):
    torch.set_num_threads(2)
    hparams = {"backbone": "tiny", "image_size": 16, "batch_size": 4, "val_augment": True}
    spec = RunSpec(dataset="PACS", protocol="quick", steps=3, checkpoint_freq=2, algorithm="SWAD+BF", hparams=hparams)

    assert run_quickly(spec, tmp_path / "run", data_dir=image_folder()) is State.DONE
    assert [line["step"] for line in _lines(tmp_path / "run")] == [0, 2, 3]


def test_too_few_images_to_split_are_refused(image_folder, tmp_path):
    spec = RunSpec(dataset="PACS", protocol="quick", hparams={"backbone": "tiny", "image_size": 16})

    with pytest.raises(InputError, match=r"PACS/art_painting has 4 images, of which holdout_fraction 0.2 holds out 0"):
        run_quickly(spec, tmp_path / "run", data_dir=image_folder(n=2))


def test_a_done_run_is_not_trained_again(tmp_path):
    run_quickly(quick_spec(), tmp_path)
    before = RunFolder(tmp_path).records_file.read_text()

    assert run_quickly(quick_spec(), tmp_path) is State.DONE
    assert RunFolder(tmp_path).records_file.read_text() == before
