"""Killed and resumed equals never killed, for every algorithm in every composition, at any moment."""

import json
import random
from contextlib import suppress

import pytest
import torch
from support import Silence, quick_spec, run_quickly
from torch.testing import assert_close

from dg_batchformer.algorithms import ALGORITHMS
from dg_batchformer.store import RunFolder, State
from dg_batchformer.training.evaluate import Evaluator
from dg_batchformer.training.stop import Interrupted

SHAPES = ("{}", "{}+BF", "SWAD+{}", "IIDMax+{}+BF")
NAMES = [shape.format(name) for name in ALGORITHMS for shape in SHAPES]
VOLATILE = ("step_time", "mem_gb")


class Killed(BaseException):
    """Stands for a signal that leaves no time for anything."""


class Killer(Silence):
    """Counts moments and kills the run at one of them."""

    def __init__(self, moment, monkeypatch):
        super().__init__()
        self.left = moment
        whole = Evaluator._evaluate

        def evaluate(evaluator, *arguments):
            self.moment()
            evaluation = whole(evaluator, *arguments)
            self.moment()
            return evaluation

        monkeypatch.setattr(Evaluator, "_evaluate", evaluate)

    def moment(self):
        if self.left == 0:
            raise Killed
        self.left -= 1

    def step(self, step):
        self.moment()

    def record(self, values):
        super().record(values)
        self.moment()


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
    spec = quick_spec(algorithm=name)
    run_quickly(spec, tmp_path / "whole")
    generator = random.Random(name)
    kills = [generator.randrange(40) for _ in range(2)]

    for moment in kills:
        with monkeypatch.context() as patch:
            watcher = Killer(moment, patch)
            with suppress(Killed):
                run_quickly(spec, tmp_path / "killed", watcher=watcher, save_seconds=generator.choice([0.0, 0.01]))
    run_quickly(spec, tmp_path / "killed")

    _equal(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize("moment", range(0, 40, 3))
def test_every_moment_can_be_the_last(moment, tmp_path, monkeypatch):
    spec = quick_spec(algorithm="SWAD+IRM+BF", hparams={"irm_penalty_anneal_iters": 5})
    run_quickly(spec, tmp_path / "whole")

    with monkeypatch.context() as patch, suppress(Killed):  # or the run was over before the moment came
        run_quickly(spec, tmp_path / "killed", watcher=Killer(moment, patch), save_seconds=0.0)
    run_quickly(spec, tmp_path / "killed")

    _equal(tmp_path / "whole", tmp_path / "killed")


def test_asked_to_stop_it_saves_and_goes_on_from_there(tmp_path):
    spec = quick_spec(algorithm="SWAD+BF")
    run_quickly(spec, tmp_path / "whole")
    asked = iter([False] * 6 + [True])

    with pytest.raises(Interrupted, match="goes on from there"):
        run_quickly(spec, tmp_path / "stopped", stop=lambda: next(asked))
    assert RunFolder(tmp_path / "stopped").state() is State.INTERRUPTED
    watcher = Silence()
    run_quickly(spec, tmp_path / "stopped", watcher=watcher)

    assert watcher.starts == [7]
    assert not RunFolder(tmp_path / "stopped").checkpoint_file.exists()
    _equal(tmp_path / "whole", tmp_path / "stopped")


def test_a_run_after_another_equals_the_run_alone(tmp_path):
    spec = quick_spec(algorithm="MLDG+BF")
    run_quickly(spec, tmp_path / "alone")

    run_quickly(quick_spec(algorithm="SWAD+DANN", trial_seed=1), tmp_path / "before")
    torch.rand(17)
    run_quickly(spec, tmp_path / "after")

    _equal(tmp_path / "alone", tmp_path / "after")
