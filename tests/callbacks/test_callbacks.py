"""Callbacks: what they are told about a run, and that they cannot end it."""

import json

import pytest
from support import Silence, quick_spec, run_quickly

from dg_batchformer.callbacks.base import Callback, measurements
from dg_batchformer.callbacks.load import find_callbacks
from dg_batchformer.cli.main import main
from dg_batchformer.errors import InputError
from dg_batchformer.storage.folders import State


class Diary(Callback):
    def __init__(self):
        self.calls = []

    def begin(self, run):
        self.run = run
        self.calls.append("begin")

    def step(self, step):
        self.calls.append(step)

    def record(self, values):
        self.calls.append(f"record {values['step']}")
        self.values = values

    def end(self, state):
        self.calls.append(state)


def test_a_callback_follows_a_run_from_its_beginning_to_its_end(tmp_path):
    diary = Diary()
    run_quickly(quick_spec(steps=3, checkpoint_freq=2), tmp_path, callbacks=[diary])

    assert diary.calls == ["begin", "record 0", 0, 1, "record 2", 2, State.DONE]
    assert (diary.run.start, diary.run.steps, diary.run.sweep) == (0, 3, "train")
    assert diary.run.config["hparams.batch_size"] == 8
    assert diary.values["test_accuracy"] == diary.values["env3_in_acc"]
    assert "step" not in measurements(diary.values)
    assert "validation_accuracy" not in json.loads((tmp_path / "results.jsonl").read_text().splitlines()[0])


def test_a_callback_is_told_that_a_run_was_interrupted_and_resumes(tmp_path):
    first, second = Diary(), Diary()
    with pytest.raises(Exception, match="saved"):
        run_quickly(quick_spec(steps=4), tmp_path, callbacks=[first], stop=lambda: first.calls[-1] == 1)
    run_quickly(quick_spec(steps=4), tmp_path, callbacks=[second])

    assert first.calls[-1] is State.INTERRUPTED
    assert second.run.start == 2
    assert [values["step"] for values in second.run.history()] == [0]


def test_a_callback_that_raises_is_dropped_with_a_note(tmp_path):
    class Broken(Diary):
        def record(self, values):
            raise RuntimeError("the server is away")

    watcher, broken, diary = Silence(), Broken(), Diary()
    state = run_quickly(quick_spec(steps=2), tmp_path, callbacks=[broken, diary], watcher=watcher)

    assert state is State.DONE
    assert watcher.notes == [
        "the callback Broken stopped (RuntimeError: the server is away); the run continues without it"
    ]
    assert broken.calls == ["begin"]
    assert diary.calls[-1] is State.DONE
    assert "Traceback" in (tmp_path / "log.txt").read_text()


PLUGIN = """
from dg_batchformer.callbacks.base import Callback

class Counting(Callback):
    def record(self, values):
        with open("counted.txt", "a") as file:
            print(values["step"], file=file)
"""


@pytest.mark.parametrize("verb", ["train", "sweep"])
def test_a_callback_of_a_plug_in_follows_runs_and_the_runs_of_a_sweep(tmp_path, monkeypatch, verb):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "counting_plugin.py").write_text(PLUGIN)
    (tmp_path / "mine.yaml").write_text(
        "datasets: [Toy]\nalgorithms: [ERM]\nprotocol: quick\ntrials: 1\ntest_envs: [A, B]\nsteps: 3\n"
        "checkpoint_freq: 2\nplugins: [counting_plugin]\n"
    )
    asked = ["--dataset", "Toy", "--protocol", "quick", "--steps", "3", "--checkpoint_freq", "2"]
    commands = {"train": [*asked, "--plugins", "counting_plugin"], "sweep": ["mine.yaml", "--devices", "cpu"]}

    assert main([verb, *commands[verb], "--log", "Counting"]) == 0

    assert (tmp_path / "counted.txt").read_text().split() == ["0", "2"] * {"train": 1, "sweep": 2}[verb]


def test_an_unknown_callback_is_reported_before_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    assert main(["train", "--dataset", "Toy", "--protocol", "quick", "--log", "tensorbord"]) == 2

    assert "unknown callback 'tensorbord'; did you mean 'tensorboard'?" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_a_missing_package_is_reported_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(InputError, match=r"pip install 'dg_batchformer\[mlflow\]'"):
        find_callbacks(["mlflow"])
