"""The Python API in a script without a ``__main__`` guard."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.system

SCRIPT = """
import dg_batchformer as dg

print("script runs")
question = {"datasets": ["Toy"], "algorithms": ["ERM", "ERM+BF"], "protocol": "quick", "steps": 5, "trials": 1}
results = dg.sweep(question, name="mine", devices="cpu,cpu", log=["tensorboard"])
results.compare("ERM", "ERM+BF")
print(sorted(results.runs()["state"].unique()))
"""


def test_a_script_without_a_guard_runs_once_and_trains_in_workers(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)

    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("script runs") == 1
    assert done.stdout.endswith("['done']\n")
    assert len(list((tmp_path / "results/mine/tensorboard").glob("*/*/*/events*"))) == 8
