import pytest

from dg_batchformer.sweep import console as console_module
from dg_batchformer.sweep.console import SweepConsole
from dg_batchformer.sweep.expand import expand
from dg_batchformer.sweep_spec import load_sweep


@pytest.mark.parametrize("start", [0, 1, 600])
def test_the_time_left_is_judged_by_the_updates_of_this_launch(start, tmp_path, monkeypatch, capsys):
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
