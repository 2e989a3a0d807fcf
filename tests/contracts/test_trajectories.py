"""Runs that follow one trajectory equal the same runs trained alone, for all averages and all kinds of algorithms."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from kills import Killed, Killer
from support import TRAINED, Silence, quick_spec, resolved, run_quickly
from torch.testing import assert_close

from dg_batchformer.catalog.wrappers import own_averaging_wrappers
from dg_batchformer.registry import ALGORITHMS, WRAPPERS
from dg_batchformer.spec.options import RunOptions
from dg_batchformer.spec.trajectories import hparam_prefix
from dg_batchformer.storage.folders import RunFolder, State
from dg_batchformer.storage.lock import Busy
from dg_batchformer.training.follower import RunToTrain
from dg_batchformer.training.run import train_together
from dg_batchformer.training.stop import Interrupted

KINDS = ("BF", "ERMPlusPlus+BF", "SagNet")  # one for every way to update
CPU = torch.device("cpu")
VOLATILE = ("step_time", "mem_gb")
SMALL = {"swad_n_converge": 2, "swad_n_tolerance": 1, "swad_tolerance_ratio": 0.0, "sma_burn_in": 3, "ema_decay": 0.5}


def _spec(name, **given):
    """Return a run in which the valley of SWAD ends early."""
    prefixes = tuple(hparam_prefix(part) for part in name.split("+") if part in own_averaging_wrappers())
    own = {key: value for key, value in SMALL.items() if key.startswith(prefixes)}
    return quick_spec(algorithm=name, hparams={"lr": 0.05, **own}, **{"steps": 21, **given})


def _name(spec):
    return "+".join([spec.algorithm, *([spec.hparams["swad_mode"]] if "swad_mode" in spec.hparams else [])])


def _together(specs, path, watcher=None, stop=lambda: False, **options):
    """Train runs together; return how each ended."""
    ends = {}
    runs = [RunToTrain(spec, RunFolder(path / _name(spec)), watcher or Silence()) for spec in specs]
    asked = RunOptions(**{"keep": "final", **options})
    train_together(runs, asked, device=CPU, stop=stop, ended=lambda run, how: ends.update({run.spec.algorithm: how}))
    return ends


def _records(path):
    lines = [json.loads(line) for line in RunFolder(path).records_file.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in VOLATILE} for line in lines]


def _assert_equal(one: Path, other: Path):
    assert _records(one) == _records(other)
    kept = [torch.load(RunFolder(path).model_file, weights_only=True) for path in (one, other)]
    assert_close(kept[0].pop("predictor"), kept[1].pop("predictor"), rtol=0, atol=0)
    assert kept[0] == kept[1]
    files = [sorted(file.name for file in path.iterdir()) for path in (one, other)]
    assert files[0] == files[1]


def _names(base):
    return [base, *(f"{wrapper}+{base}" for wrapper in own_averaging_wrappers())]


@pytest.mark.parametrize(
    "base", [*KINDS, *(pytest.param(f"{name}+BF", marks=pytest.mark.exhaustive) for name in TRAINED)]
)
def test_runs_that_share_a_trajectory_equal_runs_alone(base, tmp_path):
    specs = [_spec(name) for name in _names(base)]
    for spec in specs:
        run_quickly(spec, tmp_path / "alone" / spec.algorithm, predictions=True)

    ends = _together(specs, tmp_path / "shared", predictions=True)

    assert set(ends.values()) == {State.DONE}
    assert len(ends) == 6
    for spec in specs:
        _assert_equal(tmp_path / "alone" / spec.algorithm, tmp_path / "shared" / spec.algorithm)


def test_the_hparams_of_an_averaging_wrapper_are_its_own():
    declaring = [ALGORITHMS[name].search_space for name in ALGORITHMS]
    declaring += [WRAPPERS[name].settings for name in WRAPPERS if name not in own_averaging_wrappers()]
    for wrapper in own_averaging_wrappers():
        prefix = hparam_prefix(wrapper)
        assert all(name.startswith(prefix) for name in WRAPPERS[wrapper].settings("PACS"))
        assert not any(name.startswith(prefix) for declares in declaring for name in declares("PACS"))


def test_a_dead_valley_ends_its_run_and_the_others_go_on(tmp_path):
    specs = [_spec(name) for name in ("SWAD+CORAL", "CORAL", "SMA+CORAL")]

    _together(specs, tmp_path)

    steps = {spec.algorithm: [record["step"] for record in _records(tmp_path / spec.algorithm)] for spec in specs}
    assert steps["CORAL"] == [0, 4, 8, 12, 16, 20]
    assert steps["CORAL+SMA"] == [0, 4, 8, 12, 16, 20, 21]
    assert steps["CORAL+SWAD"] in ([0, 4, 8, 12, 21], [0, 4, 8, 12, 16, 21])
    done = {spec.algorithm: RunFolder(tmp_path / spec.algorithm).outcome() for spec in specs}
    assert all(outcome["seconds"] < outcome["seconds_alone"] for outcome in done.values())
    assert done["CORAL+SWAD"]["seconds_alone"] < done["CORAL"]["seconds_alone"]


def test_a_trajectory_ends_with_the_last_run_that_follows_it(tmp_path):
    spec = _spec("SWAD+CORAL")
    watcher = Silence()

    _together([spec, replace(spec, hparams={**spec.hparams, "swad_mode": "clean"})], tmp_path, watcher)

    assert max(record["step"] for record in watcher.records if "final" not in record) < 20


SHARED = ("CORAL", "SWAD+CORAL", "IIDMax+CORAL", "EMA+CORAL")


def test_runs_killed_together_at_any_moment_resume_together(tmp_path, monkeypatch):
    specs = [_spec(name) for name in SHARED]
    with monkeypatch.context() as patch:
        killer = Killer(patch, saves_every=3)
        _together(specs, tmp_path / "whole", killer, save_seconds=0.0)

    for moment in range(2, killer.moments, killer.moments // 4):
        path = tmp_path / f"killed{moment}"
        with monkeypatch.context() as patch, pytest.raises(Killed):
            _together(specs, path, Killer(patch, at=moment, saves_every=3), save_seconds=0.0)
        assert set(_together(specs, path).values()) == {State.DONE}
        for spec in specs:
            _assert_equal(tmp_path / "whole" / spec.algorithm, path / spec.algorithm)


def _stop_after(step):
    left = iter(range(step))
    return lambda: next(left, None) is None


def test_a_run_resumes_alone_and_runs_of_one_trajectory_join_at_any_step(tmp_path):
    specs = [_spec(name) for name in SHARED]
    _together(specs, tmp_path / "whole")

    ends = _together(specs[:2], tmp_path / "joined", stop=_stop_after(6))
    assert all(isinstance(how, Interrupted) for how in ends.values())
    with pytest.raises(Interrupted):
        run_quickly(specs[2], tmp_path / "joined" / specs[2].algorithm, stop=_stop_after(2))
    with pytest.raises(Interrupted):
        run_quickly(specs[0], tmp_path / "joined" / specs[0].algorithm, stop=_stop_after(3))
    watcher = Silence()
    assert set(_together(specs, tmp_path / "joined", watcher).values()) == {State.DONE}

    assert watcher.starts == [11, 7, 3, 0]
    for spec in specs:
        _assert_equal(tmp_path / "whole" / spec.algorithm, tmp_path / "joined" / spec.algorithm)


def test_finished_runs_are_left_alone_and_deleted_ones_are_trained_again(tmp_path):
    specs = [_spec(name) for name in SHARED]
    _together(specs, tmp_path / "whole")
    _together(specs, tmp_path / "again")
    kept = RunFolder(tmp_path / "again" / "CORAL").records_file.stat().st_mtime_ns
    for file in (tmp_path / "again" / "CORAL+SWAD").iterdir():
        file.unlink()

    watcher = Silence()
    assert set(_together(specs, tmp_path / "again", watcher).values()) == {State.DONE}

    assert watcher.starts == [0]
    assert RunFolder(tmp_path / "again" / "CORAL").records_file.stat().st_mtime_ns == kept
    _assert_equal(tmp_path / "whole" / "CORAL+SWAD", tmp_path / "again" / "CORAL+SWAD")


def test_a_run_that_fails_or_is_busy_leaves_the_others_alone(tmp_path, monkeypatch):
    specs = [_spec(name) for name in SHARED]
    finalize = WRAPPERS["IIDMax"].finalize

    def fail(average, batches):
        if type(average).__name__ == "CORAL+IIDMax":
            raise ValueError("no average")
        return finalize(average, batches)

    monkeypatch.setattr(WRAPPERS["IIDMax"], "finalize", fail)
    with RunFolder(tmp_path / "CORAL+EMA").lock():
        ends = _together(specs, tmp_path)

    assert ends["CORAL"] is ends["CORAL+SWAD"] is State.DONE
    assert isinstance(ends["CORAL+EMA"], Busy)
    assert str(ends["CORAL+IIDMax"]) == "no average"
    assert RunFolder(tmp_path / "CORAL+IIDMax").failure() == "ValueError: no average"
    assert RunFolder(tmp_path / "CORAL+SWAD").failure() == ""
    assert _together(specs[2:], tmp_path)["CORAL+EMA"] is State.DONE


def test_an_error_of_the_trajectory_is_an_error_of_every_run(tmp_path, monkeypatch):
    def fail(*given):
        raise ValueError("no update")

    monkeypatch.setattr(ALGORITHMS["CORAL"], "update", fail)
    ends = _together([_spec(name) for name in SHARED], tmp_path)

    assert [str(how) for how in ends.values()] == ["no update"] * 4
    for name in ends:
        assert RunFolder(tmp_path / name).failure() == "ValueError: no update"
        assert RunFolder(tmp_path / name).log_file.read_text().count("ValueError: no update") == 2  # with its traceback


def test_runs_that_diverge_together_are_all_marked(tmp_path):
    given = {"dataset": "Toy", "protocol": "quick", "steps": 13, "checkpoint_freq": 4, "test_envs": (3,)}
    specs = [resolved(**given, algorithm=name, hparams={"lr": 1e30}) for name in ("ERM", "SWAD")]

    assert set(_together(specs, tmp_path).values()) == {State.DIVERGED}


def test_runs_that_began_with_other_threads_train_apart(tmp_path):
    specs = [_spec(name, steps=9) for name in SHARED[:2]]
    _together(specs, tmp_path / "whole")
    present = torch.get_num_threads()
    try:
        torch.set_num_threads(present + 1)
        _together(specs[:1], tmp_path / "apart", stop=_stop_after(6))
        torch.set_num_threads(present)
        ends = _together([specs[1], specs[0]], tmp_path / "apart")
    finally:
        torch.set_num_threads(present)

    assert set(ends.values()) == {State.DONE}
    threads = {spec.algorithm: _records(tmp_path / "apart" / spec.algorithm)[-1]["threads"] for spec in specs}
    assert threads == {"CORAL": present + 1, "CORAL+SWAD": present}
    _assert_equal(tmp_path / "whole" / "CORAL+SWAD", tmp_path / "apart" / "CORAL+SWAD")


def test_every_run_logs_what_it_would_log_alone(tmp_path):
    specs = [_spec(name) for name in SHARED]
    _together(specs, tmp_path / "shared")
    for spec in specs:
        run_quickly(spec, tmp_path / "alone" / spec.algorithm)

    for spec in specs:
        logs = [(tmp_path / how / spec.algorithm / "log.txt").read_text() for how in ("shared", "alone")]
        said = [[line.split(" ", 2)[2][:30] for line in log.splitlines() if " after " not in line] for log in logs]
        assert said[0] == [line.replace("alone", "shared") for line in said[1]]


def test_batch_norm_statistics_of_a_finished_run_do_not_reach_the_others(image_folder, tmp_path, monkeypatch):
    def end(average, validation, evaluate):
        observe(average, validation, evaluate)
        average.finished = average.updates == 2

    observe = WRAPPERS["SWAD"].observe_average
    monkeypatch.setattr(WRAPPERS["SWAD"], "observe_average", end)
    hparams, data = {"backbone": "wrn16_2", "image_size": 32, "batch_size": 4}, image_folder()
    specs = [
        resolved(dataset="PACS", protocol="quick", algorithm=name, steps=4, checkpoint_freq=1, hparams=hparams)
        for name in ("ERM+BF", "SWAD+BF")
    ]
    for spec in specs:
        run_quickly(spec, tmp_path / "alone" / spec.algorithm, data_dir=data)

    _together(specs, tmp_path / "shared", data_dir=data)

    assert [len(_records(tmp_path / "shared" / spec.algorithm)) for spec in specs] == [4, 3]
    for spec in specs:
        _assert_equal(tmp_path / "alone" / spec.algorithm, tmp_path / "shared" / spec.algorithm)
