from dataclasses import replace

import pytest

from dg_batchformer.spec.manifest import manifest_content, read_sweep_manifest
from dg_batchformer.spec.sweep import Row, SweepSpec
from dg_batchformer.storage.digests import mark_done
from dg_batchformer.storage.folders import RunFolder, State, SweepFolder, TimedState, write_json, write_text
from dg_batchformer.storage.records import to_line
from dg_batchformer.sweep.expand import expand
from dg_batchformer.sweep.plan import States, counted, plan, run_states
from dg_batchformer.sweep.status import status_text
from dg_batchformer.text.command import PROGRAM

SWEEP = SweepSpec("s", ("PACS",), (Row("ERM", "ERM"), Row("ERM+BF", "ERM+BF")), trials=1)


def _sweep_again(tmp_path):
    return f"python -m dg_batchformer sweep sweeps/s.yaml --data_dir DATA --results_dir {tmp_path}"


def _folder(tmp_path, runs, sweep=SWEEP):
    folder = SweepFolder(tmp_path / "s")
    folder.write(manifest_content(sweep, runs))
    for run in runs:
        folder.run(run.spec.id).path.mkdir(parents=True)
    return folder


def test_a_plan_starts_missing_runs_and_estimates_their_cost_from_finished_ones(tmp_path):
    runs = expand(SWEEP)
    folder = _folder(tmp_path, runs)
    assert set(plan(folder, runs).seconds) == {None}
    assert "duration unknown until one run of every row is done" in plan(folder, runs).text(2)

    for run, seconds in ((runs[0], 60), (runs[4], 120)):
        write_json(folder.run(run.spec.id).done_file, {"outcome": "done", "seconds": seconds})
    write_text(folder.run(runs[1].spec.id).error_file, "RuntimeError: no\n")
    planned = plan(folder, runs)

    assert counted(planned.states.of) == "5 due, 1 failed, 2 done"
    assert [run.spec.id for run in planned.due] == [run.spec.id for run in runs[2:4] + runs[5:]]
    assert planned.seconds == [60, 60, 120, 120, 120]
    price = "about 4 min on 2 workers (8 min of device time)"
    assert planned.text(2) == f"8 runs: 5 due, 1 failed, 2 done. To start: 5, {price}."
    assert len(plan(folder, runs, retry=[State.FAILED]).due) == 6


def test_a_plan_says_which_rows_are_trained_together(tmp_path):
    rows = tuple(Row(name, name) for name in ("ERM", "SWAD", "CORAL", "EMA"))
    sweep = replace(SWEEP, algorithms=rows)
    runs = expand(sweep)
    folder = _folder(tmp_path, runs, sweep)
    for run in runs[:1] + runs[4:5] + runs[8:9] + runs[12:13]:
        took = {"seconds": 60} if run.label == "CORAL" else {"seconds": 60, "seconds_alone": 180}
        write_json(folder.run(run.spec.id).done_file, {"outcome": "done", **took})

    planned = plan(folder, runs)

    assert planned.text(8) == (
        "16 runs: 12 due, 4 done. To start: 12, about 2 min on 6 workers (12 min of device time). They need 6 "
        "trainings, as rows that differ only in averaging weights are trained together: ERM, SWAD, EMA. This saves "
        "about 18 min."
    )
    assert planned.seconds_of_trainings == [180, 180, 180, 60, 60, 60]
    apart = plan(folder, runs, share=False)
    assert apart.text(8).endswith("To start: 12, about 4 min on 8 workers (30 min of device time).")


def test_the_cost_of_an_interrupted_run_is_that_of_its_remaining_steps(tmp_path):
    runs = expand(SWEEP)
    folder = _folder(tmp_path, runs)
    for run in runs[:3] + runs[4:]:
        write_json(folder.run(run.spec.id).done_file, {"outcome": "done", "seconds": 1000})
    steps = runs[3].spec.steps
    half = to_line({"step": steps // 2, "args": {}})
    write_text(folder.run(runs[3].spec.id).records_file, half + '{"step": Infinity, "args": {}}\n{"step": 9')
    planned = plan(folder, runs)

    assert planned.seconds == [pytest.approx(1000 * (1 - (steps // 2 + 1) / steps))]
    assert planned.text(4) == "8 runs: 1 interrupted, 7 done. To start: 1, about 8 min on 1 worker."


def test_an_empty_plan_has_no_cost(tmp_path):
    runs = expand(SWEEP)
    folder = _folder(tmp_path, runs)
    for run in runs:
        write_json(folder.run(run.spec.id).done_file, {"outcome": "done"})

    assert plan(folder, runs).text(2) == "8 runs: 8 done. To start: 0."


def test_runs_that_a_changed_sweep_no_longer_declares_are_counted(tmp_path):
    runs = expand(SWEEP)
    folder = _folder(tmp_path, runs)
    for run in runs:
        folder.log_final(run.spec.id, State.DONE, 1.0)

    assert plan(folder, runs).states.undeclared == 0
    assert plan(folder, runs[:5]).states.undeclared == 3
    assert plan(SweepFolder(tmp_path / "new"), runs).states.undeclared == 0


def test_runs_queued_in_slurm_are_not_started_again(tmp_path):
    runs = expand(SWEEP)

    planned = plan(SweepFolder(tmp_path), runs, queued={runs[0].spec.id, runs[5].spec.id})

    assert [run.spec.id for run in planned.due] == [run.spec.id for run in runs[1:5] + runs[6:]]


def test_a_trained_run_is_inspected_once(tmp_path, monkeypatch):
    """Its state is logged by the process that trained it or first found it; truncated lines are ignored."""
    runs = expand(SWEEP)
    folder = _folder(tmp_path, runs)
    write_json(folder.run(runs[0].spec.id).done_file, {"outcome": "done", "seconds": 7})
    folder.log_final(runs[1].spec.id, State.DIVERGED, None)
    with folder.states_log.open("a") as file:
        file.write(f"{runs[2].spec.id} do")
    first = run_states(folder, runs)
    looked = []
    monkeypatch.setattr(RunFolder, "state", lambda run, **_: looked.append(run.path.name) or State.DUE)

    again = run_states(folder, runs)

    assert first.of == again.of
    assert again.finals == {
        runs[0].spec.id: TimedState(State.DONE, 7),
        runs[1].spec.id: TimedState(State.DIVERGED),
    }
    assert again.having(State.DONE, State.DIVERGED) == {run.spec.id for run in runs[:2]}
    assert looked == [run.spec.id for run in runs[2:]]


def test_status_shows_failures_their_reasons_and_the_next_command(tmp_path):
    runs = expand(SWEEP)
    folder = _folder(tmp_path, runs)
    folder.run(runs[3].spec.id).error_file.write_bytes(b"image x\xff.jpg cannot be decoded\n\nTraceback ...")
    write_json(folder.run(runs[4].spec.id).done_file, {"outcome": "diverged"})
    declared = read_sweep_manifest(folder)

    text = status_text(folder, declared, run_states(folder, declared.runs))

    assert (
        f"failed: ERM on PACS/sketch, trial 0 ({runs[3].spec.id})\n  image x\N{REPLACEMENT CHARACTER}.jpg cannot"
        in text
    )
    assert f"diverged: ERM+BF on PACS/art_painting, trial 0 ({runs[4].spec.id})" in text
    assert "6 runs left, duration unknown until one run of every row is done" in text
    sweep = _sweep_again(tmp_path)
    assert f"continue: {sweep}\n" in text
    assert f"try failed runs again: {sweep} --retry failed\n" in text
    assert f"tables: python -m dg_batchformer tables {tmp_path / 's'}" in text


def test_a_deleted_run_folder_is_reported_and_trained_again(tmp_path):
    """The log of states is only a cache of the folder."""
    runs = expand(SWEEP)
    folder = _folder(tmp_path, runs)
    for run in runs:
        folder.log_final(run.spec.id, State.DONE, 60.0)
    gone = runs[2].spec.id
    folder.run(gone).path.rmdir()

    planned = plan(folder, runs)

    assert counted(planned.states.of) == "1 folder is gone, 7 done"
    assert [run.spec.id for run in planned.due] == [gone]
    assert planned.seconds == [60]
    text = status_text(folder, read_sweep_manifest(folder), planned.states)
    assert f"folder is gone: ERM on PACS/photo, trial 0 ({gone})" in text
    assert f"continue: {_sweep_again(tmp_path)}\n" in text


def test_a_restarted_run_is_no_longer_recorded_as_trained(tmp_path):
    runs = expand(SWEEP)
    folder = _folder(tmp_path, runs)
    run_id = runs[0].spec.id
    mark_done(folder.run(run_id), {"outcome": "done", "seconds": 1.0})
    folder.log_final(run_id, State.DONE, 1.0)

    folder.restart(run_id)

    assert run_states(folder, runs).of[run_id] is State.DUE
    folder.log_final(run_id, State.DIVERGED, 2.0)
    assert run_states(folder, runs).of[run_id] is State.DIVERGED


def test_damage_is_found_where_runs_are_verified_and_trained_again_if_asked(tmp_path):
    runs = expand(SWEEP)
    folder = _folder(tmp_path, runs)
    for run in runs:
        files = folder.run(run.spec.id)
        files.model_file.write_bytes(b"weights")
        mark_done(files, {"outcome": "done", "seconds": 1.0})
    damaged = runs[1].spec.id
    folder.run(damaged).model_file.write_bytes(b"weight!")

    assert counted(run_states(folder, runs).of) == "8 done"
    states = run_states(folder, runs, verify=True)

    assert counted(states.of) == "1 damaged, 7 done"
    text = status_text(folder, read_sweep_manifest(folder), states)
    assert f"damaged: ERM on PACS/cartoon, trial 0 ({damaged})\n  model.pt changed since the run finished" in text
    assert f"train damaged runs again: {_sweep_again(tmp_path)} --retry damaged\n" in text
    assert not plan(folder, runs).due
    assert [run.spec.id for run in plan(folder, runs, retry=[State.DAMAGED]).due] == [damaged]


def test_status_opens_no_folder_of_a_trained_run(tmp_path, monkeypatch):
    runs = expand(SWEEP)
    folder = _folder(tmp_path, runs)
    for run in runs:
        folder.log_final(run.spec.id, State.DONE, 1.0)
    monkeypatch.setattr(RunFolder, "state", None)
    monkeypatch.setattr(RunFolder, "outcome", None)

    assert counted(run_states(folder, runs).of) == "8 done"


def test_status_fits_80_columns_but_for_commands(tmp_path):
    long = Row(
        "SWAD+CORAL+BF with four heads, two layers, and a name that goes on and on for more than a line", "CORAL"
    )
    sweep = replace(SWEEP, algorithms=(*SWEEP.algorithms, long))
    runs = expand(sweep)
    folder = _folder(tmp_path, runs, sweep)
    folder.run(runs[0].spec.id).error_file.write_text(f"RuntimeError: {'all is lost, ' * 30}")
    states = dict(zip((run.spec.id for run in runs), [*State, *State], strict=False))

    declared = read_sweep_manifest(folder)
    text = status_text(folder, declared, States(states, {}, 0, {run_id: ["model.pt"] for run_id in states}))

    lines = [line for line in text.splitlines() if PROGRAM not in line]
    assert max(map(len, lines)) <= 80


def test_status_says_what_every_row_cost_and_what_training_rows_together_saved(tmp_path):
    sweep = replace(SWEEP, algorithms=(Row("ERM", "ERM"), Row("SWAD", "SWAD")))
    runs = expand(sweep)
    folder = _folder(tmp_path, runs, sweep)
    for run in runs:
        seconds = 1800 if run.label == "ERM" else 2700
        folder.log_final(run.spec.id, State.DONE, seconds, 3600)

    text = status_text(folder, read_sweep_manifest(folder), run_states(folder, runs))

    assert [line.split()[-2:] for line in text.splitlines()[2:5]] == [["2.0", "h"], ["3.0", "h"], ["5.0", "h"]]
    assert "device time: 5.0 h; training rows together saved 3.0 h\n" in text
