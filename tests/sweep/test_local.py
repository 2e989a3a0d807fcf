"""Real worker processes."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest

from dg_batchformer.errors import InputError
from dg_batchformer.store import State, SweepFolder
from dg_batchformer.sweep.expand import expand
from dg_batchformer.sweep_spec import load_sweep
from dg_batchformer.training.preflight import parse_devices

SWEEP = """
datasets: [Toy]
algorithms: [ERM, SWAD+BF]
protocol: quick
trials: 1
test_envs: [{envs}]
steps: {steps}
checkpoint_freq: 20
hparams: {{mlp_width: 16, batch_size: 8}}
"""
VOLATILE = ("step_time", "mem_gb")


def _sweep(tmp_path, steps=41, envs="A", text=SWEEP, name="tiny"):
    file = tmp_path / f"{name}.yaml"
    file.write_text(text.format(steps=steps, envs=envs))
    return file, SweepFolder(tmp_path / "results" / name), [run.spec for run in expand(load_sweep(file))]


def _start(file, *more):
    command = [sys.executable, "-m", "dg_batchformer", "sweep", str(file), "--devices", "cpu,cpu"]
    command += ["--results_dir", str(file.parent / "results"), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _records(folder, spec):
    lines = folder.run(spec.id).records_file.read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in VOLATILE} for line in lines]


def _wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_two_launches_at_once_train_each_run_once(tmp_path):
    file, folder, specs = _sweep(tmp_path, envs="A, B")
    launches = [_start(file) for _ in range(2)]
    outputs = [launch.communicate(timeout=120)[0] for launch in launches]

    assert all(folder.run(spec.id).state() is State.DONE for spec in specs), outputs
    for spec in specs:
        starts = [line for line in folder.run(spec.id).log_file.read_text().splitlines() if "from step" in line]
        assert len(starts) == 1
    assert sum(output.count("] done") for output in outputs) >= len(specs)


def test_a_failing_run_stops_no_other_and_is_tried_again_only_when_asked(tmp_path):
    text = SWEEP.replace(
        "algorithms: [ERM, SWAD+BF]", "algorithms: [ERM, {{name: ERM, label: 1e30, hparams: {{lr: 1e30}}}}]"
    )
    file, folder, specs = _sweep(tmp_path, text=text, envs="A, B")
    broken = folder.run(specs[0].id)
    broken.records_file.mkdir(parents=True)  # cannot be written to

    first = _start(file)
    output = first.communicate(timeout=120)[0]

    assert first.returncode == 1, output
    assert broken.state() is State.FAILED
    assert "IsADirectoryError" in broken.failure()
    assert [folder.run(spec.id).state() for spec in specs[1:]] == [State.DONE, State.DIVERGED, State.DIVERGED]
    broken.records_file.rmdir()
    assert "To start: 0" in _start(file, "--launcher", "dry_run").communicate(timeout=60)[0]
    retried = _start(file, "--retry", "failed")
    assert "To start: 1" in retried.communicate(timeout=120)[0]
    assert broken.state() is State.DONE
    assert not broken.error_file.exists()


def test_ctrl_c_leaves_a_state_that_the_same_command_continues(tmp_path):
    file, folder, specs = _sweep(tmp_path, steps=1501)
    whole_file, whole, _ = _sweep(tmp_path, steps=1501, name="whole")
    launch = _start(file)
    _wait_for(lambda: any(folder.run(spec.id).records_file.exists() for spec in specs))
    launch.send_signal(signal.SIGINT)
    output = launch.communicate(timeout=60)[0]

    assert launch.returncode == 130, output
    assert "the same command goes on from there" in output
    states = {folder.run(spec.id).state() for spec in specs}
    assert State.INTERRUPTED in states
    assert State.RUNNING not in states
    for launch in (_start(file), _start(whole_file)):
        assert "] done" in launch.communicate(timeout=240)[0]
    for spec in specs:
        assert _records(folder, spec) == _records(whole, spec)


def test_a_worker_that_is_killed_is_replaced_and_its_run_goes_on(tmp_path):
    file, folder, specs = _sweep(tmp_path, steps=801)
    launch = _start(file)
    _wait_for(lambda: any(folder.run(spec.id).lock_file.exists() for spec in specs))
    victim = next(folder.run(spec.id) for spec in specs if folder.run(spec.id).lock_file.exists())
    os.kill(json.loads(victim.lock_file.read_text())["pid"], signal.SIGKILL)
    output = launch.communicate(timeout=240)[0]

    assert launch.returncode == 0, output
    assert "its worker process ended with signal SIGKILL; the run goes on in another" in output
    assert all(folder.run(spec.id).state() is State.DONE for spec in specs)


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ("cuda:7", "device cuda:7 is not there: no CUDA devices found"),
        ("mps", "device mps is not supported"),
        ("cpu,,cpu", "has an empty part"),
    ],
)
def test_devices_that_are_not_there_are_refused(devices, message):
    with pytest.raises(InputError, match=message):
        parse_devices(devices)


def test_a_dry_run_prints_commands_that_give_the_same_runs(tmp_path):
    file, folder, specs = _sweep(tmp_path)
    output = _start(file, "--launcher", "dry_run").communicate(timeout=60)[0]
    commands = [line for line in output.splitlines() if line.startswith("python -m dg_batchformer train")]

    assert len(commands) == len(specs)
    assert not folder.path.exists()
    command = [sys.executable, *shlex.split(commands[-1])[1:]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert folder.run(specs[-1].id).state() is State.DONE
