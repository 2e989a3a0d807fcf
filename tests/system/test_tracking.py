"""W&B and MLflow with the real packages, offline: their records of a run, also after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from support import quick_spec, run_quickly

from dg_batchformer.cli.main import main

pytestmark = [pytest.mark.system, pytest.mark.filterwarnings("ignore")]

ROOT = Path(__file__).parents[2]
SWEEP = """# Is anything doubled?
datasets: [Toy]
algorithms: [ERM, ERM+BF]
protocol: quick
steps: 9
checkpoint_freq: 4
trials: 1
test_envs: [A, B]
hparams: {mlp_width: 16, batch_size: 8}
"""


# Kills a process when the evaluation of step 8 is logged, before the state of its run is saved.
KILLED = """
import os, signal, sys
from pathlib import Path
from support import quick_spec, run_quickly
from dg_batchformer.callbacks.load import find_callbacks

[callback_class] = find_callbacks([sys.argv[1]])

class KilledAt8(callback_class):
    def record(self, values):
        super().record(values)
        if values["step"] == 8:
            os.kill(os.getpid(), signal.SIGKILL)

run_quickly(quick_spec(), Path(sys.argv[2]), callbacks=[KilledAt8()], save_seconds=0.0)
"""


def _train_killed(name, folder):
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    command = [sys.executable, "-c", KILLED, name, str(folder)]
    assert subprocess.run(command, check=False, env={**os.environ, "PYTHONPATH": paths}).returncode == -signal.SIGKILL


def _recorded(folder, name):
    lines = map(json.loads, (folder / "results.jsonl").read_text().splitlines())
    return [(line["step"], pytest.approx(line[name])) for line in lines]


# The .wandb file is a log of LevelDB: blocks of 32 KiB, in which a record is a header of checksum, length and kind, and
# its bytes; kinds 2, 3 and 4 are the first, middle and last part of a longer one.
_BLOCK, _FILE_HEADER, _HEADER = 32768, 7, 7


def _wandb_records(file):
    from wandb.proto import wandb_internal_pb2

    content, place, parts = file.read_bytes(), _FILE_HEADER, b""
    while place + _HEADER <= len(content):
        if _BLOCK - place % _BLOCK < _HEADER:
            place += _BLOCK - place % _BLOCK
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        parts += content[place + _HEADER : place + _HEADER + length]
        place += _HEADER + length
        if kind in (1, 4):
            yield wandb_internal_pb2.Record.FromString(parts)
            parts = b""


def _wandb_history(file, name):
    end = time.monotonic() + 30
    while True:  # the process of W&B writes the file, perhaps a little after the run has finished
        records = {kind: [] for kind in ("run", "history", "exit")}
        for record in _wandb_records(file):
            kind = record.WhichOneof("record_type")
            records.get(kind, []).append(getattr(record, kind))
        if records["exit"] or time.monotonic() > end:
            break
        time.sleep(0.05)
    found = []
    for history in records["history"]:
        items = {".".join(item.nested_key) or item.key: item.value_json for item in history.item}
        found.append((json.loads(items["_step"]), json.loads(items[name])))
    [run] = records["run"]
    return found, run


def test_wandb_offline_holds_every_record_once_also_of_a_run_that_was_killed(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    spec = quick_spec()
    _train_killed("wandb", tmp_path / "run")
    run_quickly(spec, tmp_path / "run", log=("wandb",), save_seconds=0.0)

    [file] = (tmp_path / "run" / "wandb").glob(f"offline-run-*-{spec.id}/run-{spec.id}.wandb")
    history, run = _wandb_history(file, "env3_in_acc")
    assert history == _recorded(tmp_path / "run", "env3_in_acc")
    assert (run.project, run.run_group, run.job_type, run.run_id) == ("train", "ERM", "Toy D", spec.id)


def test_mlflow_holds_every_record_once_also_of_a_run_that_was_killed(tmp_path):
    from mlflow.tracking import MlflowClient

    spec, folder = quick_spec(), tmp_path / "run"
    _train_killed("mlflow", folder)
    run_quickly(spec, folder, log=("mlflow",), save_seconds=0.0)

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    [experiment] = [one for one in client.search_experiments() if one.name == "train"]
    [run] = client.search_runs([experiment.experiment_id])
    points = client.get_metric_history(run.info.run_id, "env3_in_acc")
    assert sorted((point.step, point.value) for point in points) == _recorded(folder, "env3_in_acc")
    assert run.info.status == "FINISHED"
    assert run.data.tags["row"] == "ERM"
    assert run.data.params["hparams.batch_size"] == "8"


def test_workers_of_a_sweep_share_an_experiment_of_mlflow(tmp_path):
    from mlflow.tracking import MlflowClient

    file = tmp_path / "mine.yaml"
    file.write_text(SWEEP)
    command = [sys.executable, "-m", "dg_batchformer", "sweep", str(file), "--results_dir", str(tmp_path / "results")]
    subprocess.run([*command, "--devices", "cpu,cpu", "--log", "mlflow"], check=True, env={**os.environ})

    client = MlflowClient(f"sqlite:///{tmp_path}/results/mine/mlflow.db")
    [experiment] = [one for one in client.search_experiments() if one.name == "mine"]
    runs = client.search_runs([experiment.experiment_id])
    assert Counter((run.data.tags["row"], run.data.tags["test_envs"]) for run in runs) == {
        (row, env): 1 for row in ("ERM", "ERM+BF") for env in "AB"
    }
    assert main(["export", str(tmp_path / "results" / "mine"), "--to", "mlflow"]) == 0
    assert len(client.get_metric_history(runs[0].info.run_id, "test_accuracy")) == 3
