from dg_batchformer.declaration import declaration
from dg_batchformer.store import State, SweepFolder, write_json, write_text
from dg_batchformer.sweep.expand import expand
from dg_batchformer.sweep.plan import plan
from dg_batchformer.sweep.status import has_failures, status_text
from dg_batchformer.sweep_spec import Row, SweepSpec

SWEEP = SweepSpec("s", ("PACS",), (Row("ERM", "ERM"), Row("ERM+BF", "ERM+BF")), trials=1)


def _folder(tmp_path, runs):
    folder = SweepFolder(tmp_path)
    folder.write(declaration(SWEEP, runs))
    for run in runs:
        folder.run(run.spec.id).path.mkdir(parents=True)
    return folder


def test_a_plan_starts_what_is_due_and_prices_it_from_what_is_done(tmp_path):
    runs = expand(SWEEP)
    folder = _folder(tmp_path, runs)
    assert plan(folder, runs).seconds is None
    assert "price unknown until a run of every row is done" in plan(folder, runs).text(2)

    for run, seconds in ((runs[0], 60), (runs[4], 120)):
        write_json(folder.run(run.spec.id).done_file, {"outcome": "done", "seconds": seconds})
    write_text(folder.run(runs[1].spec.id).error_file, "RuntimeError: no\n")
    planned = plan(folder, runs)

    assert planned.states == {State.DONE: 2, State.FAILED: 1, State.DUE: 5}
    assert [run.spec.id for run in planned.due] == [run.spec.id for run in runs[2:4] + runs[5:]]
    assert planned.seconds == 2 * 60 + 3 * 120
    assert planned.text(2) == "8 runs: 5 due, 1 failed, 2 done. To start: 5, about 4 min on 2 workers."
    assert len(plan(folder, runs, retry_failed=True).due) == 6


def test_status_says_what_failed_and_why_and_how_to_go_on(tmp_path):
    runs = expand(SWEEP)
    folder = _folder(tmp_path, runs)
    write_text(folder.run(runs[3].spec.id).error_file, "image x.jpg cannot be decoded\n\nTraceback ...")

    text = status_text(folder)

    assert f"failed: ERM on PACS/sketch, trial 0 ({runs[3].spec.id}): image x.jpg cannot be decoded" in text
    assert "python -m dg_batchformer sweep sweeps/s.yaml" in text
    assert has_failures(folder)
