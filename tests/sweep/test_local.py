"""The local launcher with real worker processes."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stand_in_gpus import Gpus

from dg_batchformer.cli.main import main, parser
from dg_batchformer.cli.train import run_spec
from dg_batchformer.errors import InputError
from dg_batchformer.spec.options import Assignment, RunOptions, Task
from dg_batchformer.spec.sweep_file import load_sweep
from dg_batchformer.storage.folders import State, SweepFolder
from dg_batchformer.sweep.expand import expand
from dg_batchformer.sweep.launchers import admission, local
from dg_batchformer.sweep.launchers.dry_run import commands
from dg_batchformer.sweep.launchers.process import WorkerProcess
from dg_batchformer.sweep.launches import is_launched
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
INTERRUPTED_AT_A_NOTE = """
import signal, sys
from dg_batchformer.cli.main import main
from dg_batchformer.sweep.console import SweepConsole

SweepConsole.note = lambda *given: signal.raise_signal(signal.SIGINT)
sys.exit(main(sys.argv[1:]))
"""
PATIENCE = 300  # seconds; tests must pass on busy machines
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


def _wait_for(condition, seconds=PATIENCE):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)


def _kill_worker(folder):
    """Kill the worker of a run once it trains."""
    _wait_for(folder.lock_file.exists)
    os.kill(json.loads(folder.lock_file.read_text())["pid"], signal.SIGKILL)


@pytest.mark.system
def test_two_launches_at_once_train_each_run_once(tmp_path):
    file, folder, specs = _sweep(tmp_path, envs="A, B")
    launches = [_start(file) for _ in range(2)]
    outputs = [launch.communicate(timeout=PATIENCE)[0] for launch in launches]

    assert all(folder.run(spec.id).state() is State.DONE for spec in specs), outputs
    for spec in specs:
        starts = [line for line in folder.run(spec.id).log_file.read_text().splitlines() if "from step" in line]
        assert len(starts) == 1
    assert sum(output.count(": validation ") for output in outputs) >= len(specs)


@pytest.mark.system
def test_a_failing_run_does_not_stop_others_and_is_retried_only_when_asked(tmp_path):
    text = SWEEP.replace(
        "algorithms: [ERM, SWAD+BF]", "algorithms: [ERM, {{name: ERM, label: 1e30, hparams: {{lr: 1e30}}}}]"
    )
    file, folder, specs = _sweep(tmp_path, text=text, envs="A, B")
    broken = folder.run(specs[0].id)
    broken.records_file.mkdir(parents=True)  # cannot be written to

    first = _start(file)
    output = first.communicate(timeout=PATIENCE)[0]

    assert first.returncode == 1, output
    assert broken.state() is State.FAILED
    assert "IsADirectoryError" in broken.failure()
    assert [folder.run(spec.id).state() for spec in specs[1:]] == [State.DONE, State.DIVERGED, State.DIVERGED]
    broken.records_file.rmdir()
    assert "not done: 1 failed, 2 diverged; see: python -m dg_batchformer status" in output
    again = _start(file)
    assert "To start: 0." in again.communicate(timeout=PATIENCE)[0]
    assert again.returncode == 1, "every launch reports runs that earlier ones left undone"
    assert main(["status", str(folder.path)]) == 1
    retried = _start(file, "--retry", "failed")
    assert "To start: 1" in retried.communicate(timeout=PATIENCE)[0]
    assert broken.state() is State.DONE
    assert not broken.error_file.exists()


@pytest.mark.system
def test_the_same_command_resumes_after_ctrl_c(tmp_path):
    file, folder, specs = _sweep(tmp_path, steps=1501)
    whole_file, whole, _ = _sweep(tmp_path, steps=1501, name="whole")
    launch = _start(file)
    _wait_for(lambda: any(folder.run(spec.id).records_file.exists() for spec in specs))
    launch.send_signal(signal.SIGINT)
    output = launch.communicate(timeout=PATIENCE)[0]

    assert launch.returncode == 130, output
    assert "rerun the command to resume" in output
    states = {folder.run(spec.id).state() for spec in specs}
    assert State.INTERRUPTED in states
    assert State.RUNNING not in states
    for launch in (_start(file), _start(whole_file)):
        assert ": validation " in launch.communicate(timeout=PATIENCE)[0]
    for spec in specs:
        assert _records(folder, spec) == _records(whole, spec)


@pytest.mark.system
def test_one_ctrl_c_is_enough_even_while_a_lost_worker_is_being_replaced(tmp_path):
    file, folder, [spec, _] = _sweep(tmp_path, steps=1_000_000)
    command = ["sweep", str(file), "--devices", "cpu", "--results_dir", str(tmp_path / "results")]
    launch = [sys.executable, "-c", INTERRUPTED_AT_A_NOTE, *command]
    process = subprocess.Popen(launch, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    _kill_worker(folder.run(spec.id))

    output = process.communicate(timeout=PATIENCE)[0]

    assert process.returncode == 130, output
    assert "interrupted: all runs are saved" in output
    assert folder.run(spec.id).state() is not State.RUNNING


@pytest.mark.system
def test_a_killed_worker_is_replaced_and_its_run_resumes(tmp_path):
    file, folder, specs = _sweep(tmp_path, steps=801)
    launch = _start(file)
    _kill_worker(folder.run(specs[0].id))
    output = launch.communicate(timeout=PATIENCE)[0]

    assert launch.returncode == 0, output
    assert "its worker process ended with signal SIGKILL; the run resumes in another" in output
    assert all(folder.run(spec.id).state() is State.DONE for spec in specs)


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ("cuda:7", "device cuda:7 does not exist: no CUDA devices found"),
        ("mps", "device mps is not supported"),
        ("cpu,,cpu", "has an empty entry"),
    ],
)
def test_unknown_devices_are_refused(devices, message, monkeypatch):
    Gpus(monkeypatch, 0)
    with pytest.raises(InputError, match=message):
        parse_devices(devices)


@pytest.mark.parametrize("data_dir", [None, Path("a folder/data")])
def test_a_dry_run_prints_the_commands_of_workers(tmp_path, data_dir):
    row = "{{name: SWAD+BF, label: 2 layers, hparams: {{bf_layers: 2, lr: 5e-5}}}}"
    rows = f"algorithms: [ERM, {row}]\ndraws: 2\npairs: true"
    file, folder, _ = _sweep(tmp_path, text=SWEEP.replace("algorithms: [ERM, SWAD+BF]", rows), envs="A, C")
    runs = expand(load_sweep(file))

    options = RunOptions(data_dir, keep="final", predictions=True)
    printed = [parser().parse_args(shlex.split(line)[3:]) for line in commands(folder, runs, options, 2)]

    assert len(runs) > 16
    assert [_task(given) for given in printed] == [
        Task((Assignment(run.spec, folder.run(run.spec.id).path),), options) for run in runs
    ]
    assert {options.threads for options in printed} == {2}


def _task(given):
    options = RunOptions(given.data_dir, keep=given.keep, predictions=given.predictions)
    return Task((Assignment(run_spec(given), given.output_dir),), options)


def test_a_dry_run_needs_neither_data_nor_weights(tmp_path, capsys):
    sweep = Path(__file__).parents[2] / "sweeps" / "pacs.yaml"

    assert main(["sweep", str(sweep), "--launcher", "dry_run", "--results_dir", str(tmp_path / "results")]) == 0

    plan, note, *lines = capsys.readouterr().out.splitlines()
    assert plan.startswith("pacs: 48 runs: 48 due. To start: 48, duration unknown")
    assert note == "note: a dry run starts nothing, and does not check for data and weights"
    assert len(lines) == 4
    assert lines[-1] == "... and 45 more commands; --verbose prints all"
    main(["sweep", str(sweep), "--launcher", "dry_run", "--verbose", "--results_dir", str(tmp_path / "results")])
    assert len(capsys.readouterr().out.splitlines()) == 2 + 48
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("- SWAD+CORRAL", ":4: row 'SWAD+CORRAL': unknown algorithm 'CORRAL'; did you mean 'CORAL'?"),
        ("- SWAD+IIDMax", ":4: row 'SWAD+IIDMax': IIDMax+SWAD combines IIDMax and SWAD"),
        (
            "- {name: BF, label: deep, hparams: {bf_layer: 2}}",
            ":4: row 'deep': unknown hparam of BF on Toy: 'bf_layer'",
        ),
        ("- {name: BF, label: deep, hparams: {bf_layers: -1}}", ":4: row 'deep': hparam bf_layers is -1"),
    ],
)
def test_a_row_that_cannot_be_trained_is_named_with_file_and_line(tmp_path, capsys, row, message):
    file = tmp_path / "mine.yaml"
    file.write_text(f"datasets: [Toy]\nalgorithms:\n- ERM\n{row}\n")

    assert main(["sweep", str(file), "--results_dir", str(tmp_path / "results")]) == 2
    assert f"error: {file}{message}" in capsys.readouterr().err


def test_runs_of_a_removed_row_are_kept_and_left_out_with_a_note(tmp_path, capsys):
    file, folder, specs = _sweep(tmp_path)
    for spec in specs:
        folder.run(spec.id).path.mkdir(parents=True)
        folder.log_final(spec.id, State.DONE, 1.0)
    file.write_text(file.read_text().replace("[ERM, SWAD+BF]", "[ERM]"))

    main(["sweep", str(file), "--launcher", "dry_run", "--results_dir", str(tmp_path / "results")])

    assert f"note: {folder.path} has 1 run that {file} does not declare; " in capsys.readouterr().out


def test_cancel_stops_a_launch_of_another_process_and_its_runs_are_saved(tmp_path, capsys):
    file, folder, specs = _sweep(tmp_path, steps=1_000_000)
    launch = _start(file)
    _wait_for(lambda: all(folder.run(spec.id).records_file.exists() for spec in specs))

    assert main(["cancel", str(folder.path)]) == 0

    output = launch.communicate(timeout=PATIENCE)[0]
    assert launch.returncode == 130, output
    assert "stopping 1 launches on this machine and 0 SLURM tasks" in capsys.readouterr().out
    assert {folder.run(spec.id).state() for spec in specs} == {State.INTERRUPTED}
    assert main(["cancel", str(folder.path)]) == 0
    assert "stopping 0 launches" in capsys.readouterr().out


@pytest.mark.system
def test_a_run_that_is_out_of_memory_is_retried_once_alone(tmp_path):
    rows = "algorithms: [{{name: ERM, label: huge, hparams: {{mlp_width: 10000000}}}}, ERM]"
    file, folder, specs = _sweep(tmp_path, text=SWEEP.replace("algorithms: [ERM, SWAD+BF]", rows), envs="A, B")

    launch = _start(file)
    output = launch.communicate(timeout=PATIENCE)[0]

    assert launch.returncode == 1, output
    assert output.count("out of memory on cpu; use a smaller batch_size or image_size; the run is retried alone") == 2
    assert len(re.findall(r"\] huge on Toy/[AB], trial 0: failed: out of memory", output)) == 2
    done = [index for index, line in enumerate(output.splitlines()) if ": validation " in line]
    failed = [index for index, line in enumerate(output.splitlines()) if ": failed: " in line]
    assert max(done) < min(failed), "alone means after the others"
    assert [folder.run(spec.id).state() for spec in specs] == [State.FAILED] * 2 + [State.DONE] * 2


@pytest.mark.system
def test_status_can_be_watched_until_nothing_is_left_to_wait_for(tmp_path, capsys):
    file, folder, _ = _sweep(tmp_path)
    launch = _start(file)
    _wait_for(lambda: is_launched(folder))

    assert main(["status", str(folder.path), "--watch", "1"]) == 0

    assert launch.communicate(timeout=PATIENCE)[0]
    first, *_, last = capsys.readouterr().out.split("tiny ")[1:]
    assert "due" in first
    assert "done" in last


def test_a_worker_that_is_asked_to_stop_before_it_is_ready_stops(tmp_path):
    worker = WorkerProcess("cpu", 1, tmp_path / "workers.log")

    worker.send_signal(signal.SIGTERM)
    worker.end_within(PATIENCE)

    assert worker.bury() == 0, "it ended by itself"


def test_a_missing_device_fails_no_run_and_other_devices_go_on(tmp_path):
    file, folder, _ = _sweep(tmp_path, envs="A, B")
    report = _Running()

    assert local.LocalLauncher(folder, ["cuda:99", "cpu"], RunOptions(), report, threads=1).launch(
        expand(load_sweep(file))
    )
    assert report.how == ["done"] * 4
    again = _Running()
    local.LocalLauncher(SweepFolder(tmp_path / "none"), ["cuda:99"], RunOptions(), again).launch(
        expand(load_sweep(file))
    )
    assert again.how == ["stopped"] * 4
    assert not (tmp_path / "none" / "runs").exists()


def test_workers_wait_while_memory_is_short(tmp_path, monkeypatch):
    monkeypatch.setattr(admission, "available_memory", lambda: 0)
    _, folder, _ = runs = _sweep(tmp_path, envs="A, B")
    report = _Running()

    launcher = local.LocalLauncher(folder, ["cpu", "cpu"], RunOptions(), report, threads=1)
    assert launcher.launch(expand(load_sweep(runs[0])))

    assert report.most == 1
    assert report.how == ["done"] * 4


class _Running:
    """A report that counts simultaneous runs."""

    def __init__(self):
        self.now, self.most, self.how = set(), 0, []

    def begin(self, run, start):
        self.now.add(run.spec.id)
        self.most = max(self.most, len(self.now))

    def progress(self, run, done):
        pass

    def ended(self, run, how, sentence):
        self.now.discard(run.spec.id)
        self.how.append(how)

    def note(self, run, sentence):
        pass


@pytest.mark.system
def test_a_dry_run_prints_commands_that_give_the_same_numbers(tmp_path):
    text = SWEEP.replace("[ERM, SWAD+BF]", "[BF]")
    file, folder, [spec] = _sweep(tmp_path, text=text)
    whole_file, whole, _ = _sweep(tmp_path, text=text, name="whole")
    output = _start(file, "--launcher", "dry_run", "--threads", "1").communicate(timeout=PATIENCE)[0]
    [command] = [shlex.split(line) for line in output.splitlines() if line.startswith("python -m dg_batchformer train")]

    assert not folder.path.exists()
    other_threads = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, *command[1:]], cwd=tmp_path, env=other_threads, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert _start(whole_file, "--threads", "1").communicate(timeout=PATIENCE)[0]
    records = _records(folder, spec)
    assert records == _records(whole, spec)
    assert {record["threads"] for record in records} == {1}
