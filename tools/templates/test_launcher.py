"""MyLauncher: a sweep of one short run is trained by it."""

from pathlib import Path

import dg_batchformer as dg


def test_it_trains_the_runs_of_a_sweep(tmp_path: Path):
    asked = {
        "datasets": ["Toy"],
        "algorithms": ["ERM"],
        "protocol": "quick",
        "steps": 2,
        "trials": 1,
        "test_envs": ["A"],
        "plugins": ["my_launcher"],
    }

    results = dg.sweep(asked, name="short", results_dir=tmp_path, launcher="MyLauncher", threads=1)

    assert results.runs()["state"].tolist() == ["done"]
