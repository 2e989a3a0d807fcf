import copy
import json
from math import isnan, log
from statistics import fmean

import pytest
import torch
from support import Silence, quick_spec, resolved, run_quickly
from torch.testing import assert_close

from dg_batchformer.algorithms import get_algorithm_class
from dg_batchformer.datasets import get_dataset_class
from dg_batchformer.hparams_registry import resolve_hparams
from dg_batchformer.spec.options import RunOptions
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.storage.digests import damaged
from dg_batchformer.storage.folders import RunFolder, State
from dg_batchformer.training import follower as follower_module
from dg_batchformer.training.evaluate import Evaluator
from dg_batchformer.training.loaders import ExactLoader
from dg_batchformer.training.run import train_run
from dg_batchformer.training.sampling import Sampler, evaluated_splits, split_environments
from dg_batchformer.training.stop import Interrupted


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
    ours = {"environments", "protocol", "dataset_fingerprint", "dataset_version", "device", "threads"}
    used = {"precision", "data_path", "compile", "versions", "format", "parameter_groups"}
    assert set(last) == accuracies | losses | domainbeds | ours | used
    assert last["epoch"] == 12 / (96 / 8)
    assert last["args"]["test_envs"] == [1]
    assert json.loads(last["args"]["hparams"]) == {"batch_size": 8, "mlp_width": 16}
    assert final["final"] is True
    assert final["averaged_to"] == 12


def test_evaluate_all_adds_training_images_and_changes_nothing_else(tmp_path):
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


def test_a_diverging_run_ends_as_diverged_and_writes_nan_as_domainbed_does(tmp_path):
    state = run_quickly(quick_spec(hparams={"lr": 1e30}), tmp_path)

    assert state is State.DIVERGED
    assert RunFolder(tmp_path).state() is State.DIVERGED
    assert "NaN" in RunFolder(tmp_path).records_file.read_text()
    assert isnan(_lines(tmp_path)[-1]["env0_out_loss"])


def _predictor(path):
    return torch.load(RunFolder(path).model_file, weights_only=True)["predictor"]


def test_a_kept_model_rebuilds_as_the_algorithm_without_its_wrappers_and_predicts_the_same(tmp_path):
    spec = quick_spec(algorithm="SWAD+CORAL+BF")
    run_quickly(spec, tmp_path)
    kept = torch.load(RunFolder(tmp_path).model_file, weights_only=True)

    algorithm_class = get_algorithm_class(kept["algorithm"])
    rebuilt = algorithm_class(kept["input_shape"], kept["num_classes"], kept["num_domains"], kept["hparams"])
    rebuilt.predictor.load_state_dict(kept["predictor"])

    assert RunSpec.from_dict(kept["spec"]) == spec
    assert algorithm_class is get_algorithm_class("CORAL")
    final, dataset = _lines(tmp_path)[-1], get_dataset_class("Toy")(None, [3], {})
    splits = evaluated_splits(spec, split_environments(spec, dataset))
    with ExactLoader(dataset.environments, 8, 0, print) as loader:
        evaluation = Evaluator(spec, loader, splits, torch.device("cpu"))(rebuilt, 0)
    assert final["final"]
    for env in range(3):
        assert evaluation.loss[env, "out"] == final[f"env{env}_out_loss"]
    encoder = torch.load(RunFolder(tmp_path).batchformer_file, weights_only=True)
    assert len(encoder["batchformer"]) == 12
    assert encoder["hparams"]["bf_heads"] == 4


def test_keep_best_keeps_the_weights_that_validate_best_and_keep_none_keeps_none(tmp_path):
    spec = quick_spec(steps=33, hparams={"lr": 0.1})
    run_quickly(spec, tmp_path / "best", keep="best")
    validation = {
        line["step"]: fmean(line[f"env{env}_out_acc"] for env in spec.train_envs) for line in _lines(tmp_path / "best")
    }
    best = max(validation, key=validation.get)
    run_quickly(quick_spec(steps=best + 1, hparams={"lr": 0.1}), tmp_path / "until_then")

    assert 0 < best < 32
    assert_close(_predictor(tmp_path / "best"), _predictor(tmp_path / "until_then"), rtol=0, atol=0)
    run_quickly(spec, tmp_path / "none", keep="none")
    assert not RunFolder(tmp_path / "none").model_file.exists()


class Replacing(get_algorithm_class("ERM")):
    """Returns another model than it trained, with zero weights."""

    def finalize(self, batches):
        other = copy.deepcopy(self)
        for parameter in other.parameters():
            parameter.data.zero_()
        other.summary = {"zeroed": 1}
        return other


def test_what_finalize_returns_is_evaluated_and_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(follower_module, "get_algorithm_class", lambda name: Replacing)
    run_quickly(quick_spec(), tmp_path)

    final = _lines(tmp_path)[-1]
    assert (final["final"], final["zeroed"]) == (True, 1)
    assert final["env0_out_loss"] == pytest.approx(log(3))
    assert all((tensor == 0).all() for tensor in _predictor(tmp_path).values())


def test_an_environment_smaller_than_a_batch_is_sampled_with_replacement_and_noted_once(tmp_path):
    watcher = Silence()
    run_quickly(resolved(dataset="Debug28", steps=2, hparams={"backbone": "tiny"}), tmp_path, watcher=watcher)

    notes = [note for note in watcher.notes if "fewer than a batch of 64: images repeat" in note]
    assert len(notes) == 2
    assert all(RunFolder(tmp_path).log_file.read_text().count(note) == 1 for note in notes)


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
    spec = resolved(dataset="PACS", protocol="quick", steps=1, test_envs=[0], hparams=hparams)

    dataset = get_dataset_class("PACS")(root, [0], resolve_hparams(spec))
    sampler = Sampler(spec, resolve_hparams(spec), dataset, split_environments(spec, dataset))
    request = sampler.task(0)[1]
    labels = [dataset[request.env].labels[index] for index in request.indices]

    assert request.env == 2
    assert 160 < sum(labels) < 240


def test_images_train_through_the_worker_pool(image_folder, tmp_path):
    torch.set_num_threads(2)
    hparams = {"backbone": "tiny", "image_size": 16, "batch_size": 4, "val_augment": True}
    spec = resolved(dataset="PACS", protocol="quick", steps=3, checkpoint_freq=2, algorithm="SWAD+BF", hparams=hparams)

    assert run_quickly(spec, tmp_path / "run", data_dir=image_folder()) is State.DONE
    assert [line["step"] for line in _lines(tmp_path / "run")] == [0, 2, 3]


def test_a_done_run_is_not_trained_again(tmp_path):
    run_quickly(quick_spec(), tmp_path)
    before = RunFolder(tmp_path).records_file.read_text()

    assert run_quickly(quick_spec(), tmp_path) is State.DONE
    assert RunFolder(tmp_path).records_file.read_text() == before


def test_a_run_that_begins_again_leaves_no_file_of_its_first_attempt(tmp_path):
    run_quickly(quick_spec(), tmp_path, keep="final", predictions=True)
    folder = RunFolder(tmp_path)
    for file in (folder.model_file, folder.predictions_file):
        file.write_bytes(b"damaged")
    folder.done_file.unlink()

    run_quickly(quick_spec(), tmp_path, keep="none")

    assert not any(file.exists() for file in folder.kept_files)
    assert damaged(folder) == []


def test_a_resumed_run_has_its_number_of_threads_and_the_process_its_own_afterwards(tmp_path):
    torch.set_num_threads(1)
    with pytest.raises(Interrupted):
        run_quickly(quick_spec(steps=4), tmp_path, stop=lambda: True)
    torch.set_num_threads(2)

    run_quickly(quick_spec(steps=4), tmp_path)

    assert _lines(tmp_path)[-1]["threads"] == 1
    assert torch.get_num_threads() == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_memory_is_measured_for_each_run_alone(tmp_path):
    device = torch.device("cuda", 0)
    torch.empty(2**28, device=device)  # 1 GiB, of a run before

    train_run(quick_spec(), RunFolder(tmp_path), RunOptions(), device=device, watcher=Silence(), stop=lambda: False)

    assert 0 < _lines(tmp_path)[-1]["mem_gb"] < 0.5
