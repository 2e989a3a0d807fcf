"""The files of a run folder, and how a run handles unexpected ones."""

import json
import logging
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support import Sent, Silence, quick_spec, resolved, run_quickly
from torch import nn
from torch.testing import assert_close

from dg_batchformer.cli.main import main
from dg_batchformer.errors import CannotResume, InputError
from dg_batchformer.networks import Featurizer
from dg_batchformer.spec.options import Assignment, RunOptions, Task
from dg_batchformer.storage.folders import RunFolder, State, write_json, write_text
from dg_batchformer.storage.lock import Busy
from dg_batchformer.training.evaluate import Evaluator
from dg_batchformer.training.run_log import journal, log
from dg_batchformer.training.stop import Interrupted
from dg_batchformer.training.worker import train_task

SMALL = {"backbone": "tiny", "image_size": 16, "batch_size": 4}


def _images(hparams=SMALL, **given):
    return resolved(dataset="PACS", protocol="quick", steps=6, checkpoint_freq=2, hparams=hparams, **given)


def _interrupted(spec, path, **given):
    """Train three steps and save the state."""
    asked = iter([False, False, True])
    with pytest.raises(Interrupted):
        run_quickly(spec, path, stop=lambda: next(asked), **given)


def _records(path):
    lines = [json.loads(line) for line in RunFolder(path).records_file.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("step_time", "mem_gb")} for line in lines]


def test_invalid_input_leaves_no_files(tmp_path, capsys):
    command = ["train", "--dataset", "Toy", "--device", "cpu", "--output_dir", str(tmp_path / "out")]

    assert main([*command, "--hparams", '{"mlp_widht": 16}']) == 2
    assert main([*command, "--algorithm", "MLDG", "--test_envs", "A", "B", "C"]) == 2

    assert "MLDG needs at least 2 training environments, got 1; hold out fewer" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_that_cannot_be_built_creates_no_folder(image_folder, tmp_path):
    data_dir = image_folder(n=2)
    with pytest.raises(InputError, match=r"PACS/art_painting has 4 images, which holdout_fraction 0.2 splits into 0"):
        run_quickly(_images(), tmp_path / "run", data_dir=data_dir)

    assert not RunFolder(tmp_path / "run").spec_file.exists()
    assert run_quickly(_images(holdout_fraction=0.5), tmp_path / "run", data_dir=data_dir) is State.DONE


def test_a_folder_whose_run_never_began_can_be_reused(tmp_path):
    write_json(RunFolder(tmp_path).spec_file, quick_spec(trial_seed=1).as_dict())

    assert run_quickly(quick_spec(), tmp_path) is State.DONE
    assert json.loads(RunFolder(tmp_path).spec_file.read_text()) == quick_spec().as_dict()


@pytest.mark.parametrize(
    "name", ["results.jsonl", "done", "checkpoint.pt", "model.pt", "batchformer.pt", "predictions.npz", "race.json"]
)
def test_files_of_other_programs_are_not_overwritten(name, tmp_path):
    (tmp_path / name).write_text("theirs")

    with pytest.raises(InputError, match=f"has {name} but no spec.json, so dg_batchformer did not write it; give"):
        run_quickly(quick_spec(), tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "theirs"


def test_the_spec_of_another_program_is_not_overwritten(tmp_path):
    (tmp_path / "spec.json").write_text('{"openapi": "3.0.0"}')

    with pytest.raises(InputError, match=r"spec\.json cannot be read; give another --output_dir"):
        run_quickly(quick_spec(), tmp_path)

    assert (tmp_path / "spec.json").read_text() == '{"openapi": "3.0.0"}'


def test_another_run_is_not_overwritten(tmp_path):
    _interrupted(quick_spec(), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    with pytest.raises(InputError, match=r"holds another run \(trial_seed 0, not 1, seed "):
        run_quickly(quick_spec(trial_seed=1), tmp_path)

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_run_resumes_only_with_its_data(image_folder, tmp_path):
    data_dir = image_folder()
    image = data_dir / "PACS" / "photo" / "dog" / "0.png"
    content = image.read_bytes()
    _interrupted(_images(), tmp_path / "run", data_dir=data_dir)
    image.write_bytes((data_dir / "PACS" / "photo" / "dog" / "1.png").read_bytes())

    with pytest.raises(
        InputError, match=r"started on data with fingerprint \w{12}, but this is \w{12}; restore it, or delete"
    ):
        run_quickly(_images(), tmp_path / "run", data_dir=data_dir)

    assert RunFolder(tmp_path / "run").state() is State.INTERRUPTED
    image.write_bytes(content)
    watcher = Silence()
    assert run_quickly(_images(), tmp_path / "run", data_dir=data_dir, watcher=watcher) is State.DONE
    assert watcher.starts == [3]


def test_a_run_resumes_only_if_its_images_have_the_names_that_decide_its_splits(image_folder, tmp_path):
    data_dir = image_folder(n=8)
    _interrupted(_images(), tmp_path / "run", data_dir=data_dir)
    for image in sorted((data_dir / "PACS" / "art_painting").rglob("*.png")):
        image.rename(image.with_name(f"x{9 - int(image.stem[-1])}.png"))

    with pytest.raises(CannotResume, match="was started on the same images under other names, whose order decides"):
        run_quickly(_images(), tmp_path / "run", data_dir=data_dir)

    assert RunFolder(tmp_path / "run").state() is State.INTERRUPTED


@pytest.mark.parametrize("name", ["weights", "init"])
def test_a_run_resumes_only_from_the_weights_that_it_began_with(name, image_folder, tmp_path):
    file, data_dir = tmp_path / "weights.pt", image_folder()
    networks = [nn.Sequential(Featurizer((3, 16, 16), SMALL), nn.Linear(16, 2)) for _ in range(2)]
    states = [(network[0] if name == "weights" else network).state_dict() for network in networks]
    spec = _images({**SMALL, name: str(file)})
    torch.save(states[0], file)
    _interrupted(spec, tmp_path / "run", data_dir=data_dir)
    torch.save(states[1], file)

    with pytest.raises(CannotResume, match=f"was started with another content of the {name} file .*; restore it, or"):
        run_quickly(spec, tmp_path / "run", data_dir=data_dir)
    torch.save(states[0], file)

    assert run_quickly(spec, tmp_path / "run", data_dir=data_dir) is State.DONE


def test_a_run_resumes_only_with_its_keep_option(tmp_path):
    _interrupted(quick_spec(), tmp_path, keep="final")

    with pytest.raises(
        InputError, match=r"was started with --keep final, not best; restore it, or delete .*checkpoint.pt"
    ):
        run_quickly(quick_spec(), tmp_path, keep="best")

    assert RunFolder(tmp_path).state() is State.INTERRUPTED
    assert run_quickly(quick_spec(), tmp_path, keep="final") is State.DONE


def _half(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize(
    ("spoil", "note"),
    [
        (_half, "cannot be read"),
        (lambda file: file.write_bytes(b""), "cannot be read"),
        (lambda file: file.write_text("not a checkpoint"), "cannot be read"),
        (lambda file: torch.save(torch.zeros(3), file), "is not a checkpoint of this version"),
        (lambda file: torch.save({"step": 3}, file), "is not a checkpoint of this version"),
        (lambda file: _half(file.with_name("results.jsonl")), "lacks records from before the checkpoint"),
    ],
)
def test_a_run_that_cannot_resume_starts_over_with_a_note(spoil, note, tmp_path):
    spec, watcher = quick_spec(algorithm="SWAD+BF"), Silence()
    run_quickly(spec, tmp_path / "whole")
    _interrupted(spec, tmp_path / "spoilt")
    spoil(RunFolder(tmp_path / "spoilt").checkpoint_file)

    run_quickly(spec, tmp_path / "spoilt", watcher=watcher)

    assert watcher.starts == [0]
    [told] = [sentence for sentence in watcher.notes if sentence.endswith("the run restarts")]
    assert note in told
    assert RunFolder(tmp_path / "spoilt").log_file.read_text().count(told) == 1
    assert _records(tmp_path / "spoilt") == _records(tmp_path / "whole")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors have no names on this system")
def test_records_are_on_the_disk_before_a_checkpoint_counts_on_them(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(Path(f"/proc/self/fd/{number}").readlink().name))
    run_quickly(quick_spec(steps=1), tmp_path, keep="none", save_seconds=0.0)

    names = ("spec.json", "results.jsonl", "checkpoint.pt", "done")
    assert [name for file in synced for name in names if name in file] == list(names)


def test_a_process_that_lost_its_run_writes_nothing_more(tmp_path):
    folder = RunFolder(tmp_path)

    class TakenOver(Silence):
        def step(self, step):
            if step == 2:
                write_text(folder.lock_file, json.dumps({"host": "elsewhere", "pid": 7, "token": "other"}))
                self.before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != "log.txt"}

    watcher = TakenOver()
    with pytest.raises(Busy, match="was taken over by process 7 on elsewhere"):
        run_quickly(quick_spec(), tmp_path, watcher=watcher, save_seconds=0.0)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != "log.txt"} == watcher.before
    assert not folder.error_file.exists()

    folder.lock_file.unlink()
    with pytest.raises(Busy):  # between two checkpoints: no record either
        run_quickly(quick_spec(), tmp_path, watcher=watcher)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != "log.txt"} == watcher.before


def test_the_reason_of_a_failure_is_written_while_the_run_is_locked(tmp_path, monkeypatch):
    held, whole = [], RunFolder.fail

    def fail(folder, *why):
        held.append(folder.lock_file.exists())
        whole(folder, *why)

    monkeypatch.setattr(RunFolder, "fail", fail)
    monkeypatch.setattr(Evaluator, "outputs", lambda *arguments: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        run_quickly(quick_spec(), tmp_path)

    assert held == [True]
    assert RunFolder(tmp_path).state() is State.FAILED
    assert RunFolder(tmp_path).failure() == "ZeroDivisionError: division by zero"
    assert "_evaluate" in RunFolder(tmp_path).error_file.read_text()


def test_out_of_memory_is_one_sentence_with_a_remedy(tmp_path, monkeypatch):
    def run_out(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory, with many numbers")

    monkeypatch.setattr(Evaluator, "outputs", run_out)

    with pytest.raises(InputError, match="out of memory on cpu; use a smaller batch_size or image_size"):
        run_quickly(quick_spec(), tmp_path)

    assert RunFolder(tmp_path).failure() == "out of memory on cpu; use a smaller batch_size or image_size"


def test_out_of_memory_on_a_cpu_is_distinguished_from_other_failures(tmp_path):
    event, values = _serve_run(tmp_path, hparams={"mlp_width": 10**7})  # 400 TB

    assert event == "failed"
    assert values["out_of_memory"]
    assert values["sentence"] == "out of memory on cpu; use a smaller batch_size or image_size"


def _serve_run(path, **given):
    task, events = Task((Assignment(quick_spec(**given), path),), RunOptions()), Sent()
    train_task(task, torch.device("cpu"), events, lambda: False)
    return events.sent[-1]


def test_a_full_disk_or_read_only_folder_does_not_kill_workers(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        event, values = _serve_run(tmp_path / "full")
    assert event == "stopped"
    assert "No space left on device; fix the disk, then rerun the command" in values["sentence"]
    assert RunFolder(tmp_path / "full").state() is not State.FAILED, "a full disk is not a failure of the run"
    (tmp_path / "file").touch()
    event, values = _serve_run(tmp_path / "file")
    assert event == "failed"
    assert values["sentence"].startswith(f"cannot write to {tmp_path / 'file'}")

    event, values = _serve_run(tmp_path / "full")
    assert (event, values["state"]) == ("end", "done")


def test_a_retried_run_equals_an_undisturbed_one(tmp_path):
    run_quickly(quick_spec(), tmp_path / "whole")
    RunFolder(tmp_path / "again").fail("something that was wrong")

    run_quickly(quick_spec(), tmp_path / "again")

    assert not RunFolder(tmp_path / "again").error_file.exists()
    models = [torch.load(RunFolder(tmp_path / name).model_file, weights_only=True) for name in ("whole", "again")]
    assert_close(models[0]["predictor"], models[1]["predictor"], rtol=0, atol=0)


def test_a_log_that_cannot_be_written_prints_no_traceback(tmp_path, capsys, monkeypatch):
    def full(text):
        raise OSError(28, "No space left on device")

    with journal(RunFolder(tmp_path), torch.device("cpu")):
        [handler] = [handler for handler in log.handlers if isinstance(handler, logging.StreamHandler)]
        monkeypatch.setattr(
            handler, "stream", SimpleNamespace(write=full, flush=lambda: None, close=handler.stream.close)
        )
        log.info("lost")

    assert capsys.readouterr().err == ""
