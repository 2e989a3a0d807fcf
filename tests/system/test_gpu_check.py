"""``tools/gpu_check.py --cpu`` rehearses on a CPU what a first contact with a GPU runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "gpu_check.py"


@pytest.mark.system
def test_every_phase_of_the_check_runs_on_a_cpu_and_saves_its_figures(tmp_path):
    command = [sys.executable, str(TOOL), "--cpu", "--out", str(tmp_path)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}

    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment, cwd=TOOL.parents[1])

    assert done.returncode == 0, done.stdout + done.stderr
    figures = [json.loads(line) for line in (tmp_path / "figures.jsonl").read_text().splitlines()]
    phases = [line["phase"] for line in figures if line["what"] == "took"]
    assert phases == ["machine", "smoke", "equal", "loop", "waits", "whole", "resume", "evaluation", "algorithms",
                      "added", "loop18", "several", "compiled", "whole18"]  # fmt: skip
    assert {line["status"] for line in figures if "status" in line} == {0}
    [resumed] = [line for line in figures if line["phase"] == "resume" and "resumed_differs_by" in line]
    assert (resumed["repeated_differs_by"], resumed["resumed_differs_by"]) == (0, 0)
    differences = [float(line["largest_relative_difference"]) for line in figures if "largest_relative" in str(line)]
    assert len(differences) == 4
    assert max(differences) == 0, "both sides ran on the CPU"
