import pytest
from support import quick_spec

from dg_batchformer.training import console as console_module
from dg_batchformer.training.console import Console


@pytest.mark.parametrize("start", [0, 60])
def test_the_time_left_is_judged_by_the_updates_of_this_start(start, monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(console_module.time, "monotonic", lambda: now[0])
    console, spec = Console(), quick_spec(steps=100)
    console.begin(spec, start)
    now[0] = 20.0  # two seconds for each of ten updates

    accuracies = {f"env{env}_{part}_acc": 0.5 for env in range(4) for part in ("in", "out")}
    console.record({"step": start + 9, "loss": 1.0, **accuracies})
    console.end()

    left = {0: "3 min", 60: "60 s"}[start]
    assert f"ETA {left}" in capsys.readouterr().out
