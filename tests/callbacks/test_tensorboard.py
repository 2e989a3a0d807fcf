"""The TensorBoard callback, read with TensorBoard's event reader."""

import json

import pytest
from support import quick_spec, run_quickly

from dg_batchformer.callbacks.tensorboard import TensorBoard
from dg_batchformer.cli.main import main

event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


class Killed(BaseException):
    """Stands for SIGKILL."""


class KilledAt(TensorBoard):
    """Kills the run when it logs the evaluation of a step, before it can save its state."""

    step_of_death = 8

    def record(self, values):
        super().record(values)
        if values["step"] == self.step_of_death:
            raise Killed


def _curves(folder):
    [path] = {file.parent for file in folder.rglob("events.out.tfevents.*")}
    reader = event_accumulator.EventAccumulator(str(path), purge_orphaned_data=True).Reload()
    return {
        name: [(point.step, round(point.value, 5)) for point in reader.Scalars(name)]
        for name in reader.Tags()["scalars"]
        if name not in ("step_time", "mem_gb")
    }


def _recorded(folder, name):
    lines = map(json.loads, (folder / "results.jsonl").read_text().splitlines())
    return [(line["step"], round(line[name], 5)) for line in lines]


def test_curves_are_those_of_the_records(tmp_path):
    run_quickly(quick_spec(), tmp_path, log=("tensorboard",))

    curves = _curves(tmp_path)
    assert curves["env3_in_acc"] == _recorded(tmp_path, "env3_in_acc")
    assert {"loss", "validation_accuracy", "test_accuracy"} <= set(curves)


def test_a_killed_run_has_the_curves_of_an_undisturbed_one(tmp_path):
    run_quickly(quick_spec(), tmp_path / "whole", log=("tensorboard",))
    with pytest.raises(Killed):
        run_quickly(quick_spec(), tmp_path / "killed", callbacks=[KilledAt()], save_seconds=0.0)
    run_quickly(quick_spec(), tmp_path / "killed", log=("tensorboard",), save_seconds=0.0)

    assert len(list((tmp_path / "killed").rglob("events.out.tfevents.*"))) == 2
    assert _curves(tmp_path / "killed") == _curves(tmp_path / "whole")


def test_an_export_writes_the_records_of_a_run_that_two_rows_share_once_for_each(tmp_path, capsys):
    file = tmp_path / "two.yaml"
    file.write_text(
        "datasets: [Toy]\nalgorithms: [ERM, {name: ERM, label: Again}]\nprotocol: quick\nsteps: 3\ntrials: 1\n"
        "test_envs: [D]\ncheckpoint_freq: 1\nhparams: {mlp_width: 8}\n"
    )
    assert main(["sweep", str(file), "--results_dir", str(tmp_path), "--devices", "cpu"]) == 0
    assert main(["pack", str(tmp_path / "two")]) == 0
    packed = tmp_path / "packed"
    packed.mkdir()
    (tmp_path / "two" / "records.parquet").rename(packed / "records.parquet")
    capsys.readouterr()

    for folder in (tmp_path / "two", packed):
        assert main(["export", str(folder), "--to", "tensorboard"]) == 0
        assert capsys.readouterr().out == "exported 2 runs to tensorboard\n"
        for row in ("ERM", "Again"):
            assert [step for step, _ in _curves(folder / "tensorboard" / row)["env3_in_acc"]] == [0, 1, 2]


def test_repeated_exports_of_a_trained_run_write_its_records_once(tmp_path, capsys):
    run_quickly(quick_spec(), tmp_path)

    for _ in range(2):
        assert main(["export", str(tmp_path), "--to", "tensorboard"]) == 0

    assert capsys.readouterr().out.startswith("exported 1 run to tensorboard")
    assert _curves(tmp_path)["env3_in_acc"] == _recorded(tmp_path, "env3_in_acc")
