import pytest

from dg_batchformer.spec.sweep_file import load_sweep
from dg_batchformer.sweep import console as console_module
from dg_batchformer.sweep.console import SweepConsole
from dg_batchformer.sweep.expand import expand


def test_a_note_is_not_repeated_by_every_run(tmp_path, capsys):
    file = tmp_path / "one.yaml"
    file.write_text("datasets: [Toy]\nalgorithms: [ERM]\nprotocol: quick\ntrials: 1\ntest_envs: [A]\nsteps: 10")
    [run] = expand(load_sweep(file))
    console = SweepConsole([run], said=["2 images are not read"])

    console.note(run, "2 images are not read")
    console.note(run, "something else")
    console.close()

    said = capsys.readouterr().out
    assert "something else" in said
    assert "not read" not in said


@pytest.mark.parametrize("start", [0, 1, 600])
def test_the_time_left_is_estimated_from_updates_of_this_launch(start, tmp_path, monkeypatch, capsys):
    file = tmp_path / "two.yaml"
    file.write_text(
        "datasets: [Toy]\nalgorithms: [ERM, CORAL]\nprotocol: quick\ntrials: 1\ntest_envs: [A]\nsteps: 1000"
    )
    first, second = expand(load_sweep(file))
    now = [0.0]
    monkeypatch.setattr(console_module.time, "monotonic", lambda: now[0])
    console = SweepConsole([first, second])

    console.begin(first, start)
    console.progress(first, start + 40)
    now[0] = 1000.0 - start  # a second for each update
    console.ended(first, "done", "")
    console.close()

    assert "(ETA 17 min)" in capsys.readouterr().out


def test_a_finished_run_has_a_line_and_no_time_left_is_shown_before_an_update(tmp_path, monkeypatch, capsys):
    file = tmp_path / "two.yaml"
    file.write_text("datasets: [Toy]\nalgorithms: [ERM]\nprotocol: quick\ntrials: 3\ntest_envs: [A]\nsteps: 100")
    first, second, third = expand(load_sweep(file))
    now = [0.0]
    monkeypatch.setattr(console_module.time, "monotonic", lambda: now[0])
    console = SweepConsole([first, second, third])

    now[0] = 500.0  # of loading and caching
    console.begin(first, 0)
    console.ended(first, "failed", "out of memory")
    console.begin(second, 0)
    now[0] = 600.0
    console.ended(second, "done", "validation 72.1, test 33.9")
    console.close()

    assert capsys.readouterr().out.splitlines() == [
        "[1/3] ERM on Toy/A, trial 0: failed: out of memory",
        "[2/3] ERM on Toy/A, trial 1: validation 72.1, test 33.9  (ETA 2 min)",
    ]
