"""Full and read-only disks: an error without corrupt files, and the sweep resumes afterwards."""

import errno
import json
import subprocess
import sys
import time

import pytest
import torch

from dg_batchformer.spec.sweep_file import load_sweep
from dg_batchformer.storage.folders import State, SweepFolder
from dg_batchformer.sweep.expand import expand
from dg_batchformer.training import checkpoint
from dg_batchformer.training.run_log import storage_error

pytestmark = pytest.mark.system
PATIENCE = 300
VOLATILE = ("step_time", "mem_gb")
SWEEP = """
datasets: [Toy]
algorithms: [ERM, SWAD+BF]
protocol: quick
trials: 1
test_envs: [A]
steps: 1501
checkpoint_freq: 50
hparams: {mlp_width: 16, batch_size: 8}
"""


@pytest.fixture
def small_disk(tmp_path):
    """A file system of two megabytes."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "small", path], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"mounting needs root: {mounted.stderr}")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


def _sweep(tmp_path, results):
    file = tmp_path / "tiny.yaml"
    file.write_text(SWEEP)
    command = [sys.executable, "-m", "dg_batchformer", "sweep", str(file), "--devices", "cpu,cpu", "--threads", "1"]
    folder = SweepFolder(results / "tiny")
    return [*command, "--results_dir", str(results)], folder, [run.spec for run in expand(load_sweep(file))]


def _start(command):
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _records(folder, spec):
    lines = folder.run(spec.id).records_file.read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in VOLATILE} for line in lines]


def _fill(path):
    with (path / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass


def test_a_full_disk_stops_runs_and_they_resume_when_there_is_room(tmp_path, small_disk):
    command, folder, specs = _sweep(tmp_path, small_disk)
    whole_command, whole, _ = _sweep(tmp_path, tmp_path / "whole")
    launch = _start(command)
    deadline = time.monotonic() + PATIENCE
    while not all(folder.run(spec.id).records_file.exists() for spec in specs):
        assert time.monotonic() < deadline
        time.sleep(0.05)

    _fill(small_disk)
    output = launch.communicate(timeout=PATIENCE)[0]

    assert launch.returncode == 1, output
    assert "No space left on device; fix the disk, then rerun the command to resume" in output
    assert "Traceback" not in output
    for spec in specs:
        run = folder.run(spec.id)
        assert run.state() in (State.INTERRUPTED, State.DUE)
        if run.checkpoint_file.exists():
            checkpoint.load(run.checkpoint_file, "cpu")
    (small_disk / "filler").unlink()
    for each in (command, whole_command):
        again = _start(each)
        assert ": validation " in again.communicate(timeout=PATIENCE)[0]
        assert again.returncode == 0
    for spec in specs:
        assert _records(folder, spec) == _records(whole, spec)


def test_a_checkpoint_without_room_is_a_disk_error(small_disk):
    """PyTorch raises an error that hides that of the disk; no partial file is left."""
    with pytest.raises(RuntimeError) as raised:
        checkpoint.save(small_disk / "checkpoint.pt", {"weights": torch.zeros(10**6)})

    assert storage_error(raised.value).errno == errno.ENOSPC
    assert list(small_disk.iterdir()) == []


def test_a_read_only_disk_is_reported_in_one_sentence(tmp_path, small_disk):
    command, folder, specs = _sweep(tmp_path, small_disk)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)

    refused = _start(command)
    output = refused.communicate(timeout=PATIENCE)[0]

    assert refused.returncode == 2
    assert f"error: cannot write to {folder.path}: Read-only file system" in output
    assert "Traceback" not in output
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    assert ": validation " in _start(command).communicate(timeout=PATIENCE)[0]
    assert {folder.run(spec.id).state() for spec in specs} == {State.DONE}
