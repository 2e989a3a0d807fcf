"""A search whose launches are killed in both of its phases chooses and trains what an undisturbed one does."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial

import pytest

from dg_batchformer.results.winners import read_winners
from dg_batchformer.spec.manifest import read_sweep_manifest
from dg_batchformer.storage.folders import State, SweepFolder
from dg_batchformer.sweep.plan import run_states

pytestmark = pytest.mark.system
PATIENCE = 120
VOLATILE = ("step_time", "mem_gb")
SWEEP = """
datasets: [Toy]
algorithms: [ERM, SWAD]
protocol: quick
test_envs: [A]
steps: 1501
checkpoint_freq: 50
hparams: {mlp_width: 16, batch_size: 8}
search: {draws: 4, on: [0], repeat: 2}
race: {rungs: [300], keep: 0.5}
"""


def _started(tmp_path, name):
    """Start the sweep, in a process group of its own."""
    file = tmp_path / "found.yaml"
    file.write_text(SWEEP)
    command = [sys.executable, "-m", "dg_batchformer", "sweep", str(file), "--devices", "cpu", "--threads", "1"]
    command += ["--results_dir", str(tmp_path / name)]
    with (tmp_path / f"{name}.log").open("a") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def _kill_when(process, reached):
    """Kill the launch and its workers as soon as a condition holds, which must be before they end."""
    end = time.monotonic() + PATIENCE
    try:
        while not reached():
            assert process.poll() is None, "the sweep ended before the kill"
            assert time.monotonic() < end, "the sweep did not get that far"
            time.sleep(0.02)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _results(folder):
    """Return the winners, and the records of every run that has some, without times."""
    winners = [(winner.row, winner.run, winner.validation, winner.stopped) for winner in read_winners(folder)]
    records = {}
    for run in read_sweep_manifest(folder).runs:
        lines = folder.run(run.spec.id).records_file.read_text().splitlines()
        kept = [{key: value for key, value in json.loads(line).items() if key not in VOLATILE} for line in lines]
        records[run.label, run.spec.trial_seed, run.spec.hparams_seed] = kept
    return winners, records


def test_kills_in_the_search_and_in_the_runs_of_its_winners_change_nothing(tmp_path):
    undisturbed = SweepFolder(tmp_path / "undisturbed" / "found")
    assert _started(tmp_path, "undisturbed").wait(PATIENCE) == 0
    folder = SweepFolder(tmp_path / "killed" / "found")

    def is_training(searches, after=0):
        """Return whether a run is half done, after some have finished."""
        if not folder.sweep_file.exists():
            return False
        runs = [folder.run(run.spec.id) for run in read_sweep_manifest(folder).runs if run.searches == searches]
        ended = [run for run in runs if run.done_file.exists() or run.race_file.exists()]
        half = [run for run in runs if run.records_file.exists() and run not in ended]
        return bool(half) and len(ended) >= after

    for moment in ({"searches": True}, {"searches": True, "after": 1}, {"searches": False}):
        _kill_when(_started(tmp_path, "killed"), partial(is_training, **moment))
    assert _started(tmp_path, "killed").wait(PATIENCE) == 0

    states = run_states(folder, read_sweep_manifest(folder).runs).of
    assert set(states.values()) == {State.DONE, State.OUTRACED}
    assert _results(folder) == _results(undisturbed)
