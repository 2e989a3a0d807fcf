"""Killed and resumed runs equal undisturbed ones, for all algorithms and compositions, at any moment."""

import json
import random
from pathlib import Path

import pytest
import torch
from kills import Killed, Killer
from support import TRAINED, Silence, quick_spec, resolved, run_quickly
from torch.testing import assert_close

from dg_batchformer.storage.folders import RunFolder, State
from dg_batchformer.training.stop import Interrupted

SHAPES = ("SWAD+{}", "IIDMax+{}+BF")  # the state of the base is part of theirs
NAMES = [*(shape.format(name) for name in TRAINED for shape in SHAPES), "SMA+MLDG+BF", "EMA+SAM"]
VOLATILE = ("step_time", "mem_gb")


def _train_whole(spec, path, monkeypatch, *, saves_every=1, **given):
    """Train a run without interruption; return its number of moments."""
    with monkeypatch.context() as patch:
        watcher = Killer(patch, saves_every=saves_every)
        assert run_quickly(spec, path, watcher=watcher, save_seconds=0.0, **given) is State.DONE
    return watcher.moments


def _kill(spec, path, monkeypatch, *, at, saves_every=1, **given):
    with monkeypatch.context() as patch:
        watcher = Killer(patch, at=at, saves_every=saves_every)
        with pytest.raises(Killed):
            run_quickly(spec, path, watcher=watcher, save_seconds=0.0, **given)


def _records(path):
    lines = [json.loads(line) for line in RunFolder(path).records_file.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in VOLATILE} for line in lines]


def _model(path):
    return torch.load(RunFolder(path).model_file, weights_only=True)["predictor"]


def _equal(one, other):
    assert _records(one) == _records(other)
    assert_close(_model(one), _model(other), rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_killed_and_resumed_equals_never_killed(name, tmp_path, monkeypatch):
    spec, generator = quick_spec(algorithm=name), random.Random(name)
    saves_every = generator.choice([1, 3, 5])
    moments = _train_whole(spec, tmp_path / "whole", monkeypatch, saves_every=saves_every)

    first = generator.randrange(moments)
    second = generator.randrange(moments - first)  # so many are left at least
    for moment in (first, second):
        _kill(spec, tmp_path / "killed", monkeypatch, at=moment, saves_every=saves_every)
    assert run_quickly(spec, tmp_path / "killed") is State.DONE

    _equal(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize("offset", range(4))
def test_a_run_can_be_killed_at_every_moment(offset, tmp_path, monkeypatch):
    spec = quick_spec(algorithm="SWAD+IRM+BF", steps=7, checkpoint_freq=3, hparams={"irm_penalty_anneal_iters": 3})
    moments = _train_whole(spec, tmp_path / "whole", monkeypatch, keep="best")

    for moment in range(offset, moments, 4):
        killed = tmp_path / f"killed{moment}"
        _kill(spec, killed, monkeypatch, at=moment, keep="best")
        assert not RunFolder(killed).state().is_final
        assert run_quickly(spec, killed, keep="best") is State.DONE
        _equal(tmp_path / "whole", killed)


@pytest.mark.parametrize("name", ["SWAD+MLDG", "SMA+MixStyle+BF"])
def test_batch_norm_statistics_are_part_of_the_state(name, image_folder, tmp_path, monkeypatch):
    hparams = {"backbone": "wrn16_2", "image_size": 32, "batch_size": 4}
    spec = resolved(dataset="PACS", protocol="quick", algorithm=name, steps=4, checkpoint_freq=2, hparams=hparams)
    given = {"data_dir": image_folder(), "monkeypatch": monkeypatch}
    moments = _train_whole(spec, tmp_path / "whole", **given)

    _kill(spec, tmp_path / "killed", at=moments // 2, **given)
    run_quickly(spec, tmp_path / "killed", data_dir=given["data_dir"])

    assert any("running_mean" in name for name in _model(tmp_path / "whole"))
    _equal(tmp_path / "whole", tmp_path / "killed")


def test_killed_once_done_is_written_it_is_done(tmp_path, monkeypatch):
    spec = quick_spec()
    run_quickly(spec, tmp_path / "whole")
    unlink = Path.unlink

    def kill_behind_done(path, **given):
        if path.name == "checkpoint.pt" and path.with_name("done").exists():
            raise Killed
        unlink(path, **given)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", kill_behind_done)
        with pytest.raises(Killed):
            run_quickly(spec, tmp_path / "killed", save_seconds=0.0)
    assert run_quickly(spec, tmp_path / "killed") is State.DONE

    _equal(tmp_path / "whole", tmp_path / "killed")


def test_a_run_that_is_asked_to_stop_saves_its_state_and_resumes(tmp_path):
    spec = quick_spec(algorithm="SWAD+BF")
    run_quickly(spec, tmp_path / "whole")
    asked = iter([False] * 6 + [True])

    with pytest.raises(Interrupted, match="rerun the command to resume"):
        run_quickly(spec, tmp_path / "stopped", stop=lambda: next(asked))
    assert RunFolder(tmp_path / "stopped").state() is State.INTERRUPTED
    watcher = Silence()
    run_quickly(spec, tmp_path / "stopped", watcher=watcher)

    assert watcher.starts == [7]
    assert not RunFolder(tmp_path / "stopped").checkpoint_file.exists()
    _equal(tmp_path / "whole", tmp_path / "stopped")


def test_a_run_after_another_in_one_process_equals_the_run_alone(tmp_path):
    spec = quick_spec(algorithm="MLDG+BF")
    run_quickly(spec, tmp_path / "alone")

    run_quickly(quick_spec(algorithm="SWAD+DANN", trial_seed=1), tmp_path / "before")
    torch.rand(17)
    run_quickly(spec, tmp_path / "after")

    _equal(tmp_path / "alone", tmp_path / "after")
