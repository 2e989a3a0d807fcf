"""Training processes on CPUs use tcmalloc; their child programs do not."""

import json
import subprocess
import sys

import pytest

from dg_batchformer.runtime.allocator import tcmalloc

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(tcmalloc() is None, reason="needs tcmalloc, see tools/install_tcmalloc.sh, and no GPU"),
]
# An algorithm that records whether its process, and a child program, use tcmalloc.
PLUGIN = """
import json, subprocess, sys
from pathlib import Path
from dg_batchformer.algorithms.erm import ERM

class Witness(ERM):
    def update(self, *batches):
        child = [sys.executable, "-c", "print(open('/proc/self/maps').read())"]
        maps = Path("/proc/self/maps").read_text(), subprocess.run(child, capture_output=True, text=True).stdout
        Path("seen.json").write_text(json.dumps(["tcmalloc" in mapped for mapped in maps]))
        return super().update(*batches)
"""
SWEEP = """
datasets: [Toy]
algorithms: [Witness]
protocol: quick
trials: 1
test_envs: [A]
steps: 3
checkpoint_freq: 3
plugins: [witness]
"""


@pytest.mark.parametrize("verb", ["train", "sweep"])
def test_a_process_that_trains_runs_on_tcmalloc_and_its_children_do_not(verb, tmp_path):
    (tmp_path / "witness.py").write_text(PLUGIN)
    (tmp_path / "tiny.yaml").write_text(SWEEP)
    run = "train --dataset Toy --algorithm Witness --plugins witness --protocol quick --steps 3 --device cpu"
    command = [sys.executable, "-m", "dg_batchformer", *(run if verb == "train" else "sweep tiny.yaml").split()]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "seen.json").read_text()) == [True, False]
