"""Workers killed at random cost time but no results."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("workers")]
TOOL = Path(__file__).parents[2] / "tools" / "chaos.py"


def test_32_disturbed_runs_equal_undisturbed_ones():
    done = subprocess.run([sys.executable, TOOL, "--runs", "32"], capture_output=True, text=True, timeout=1200)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "runs 32" in done.stdout
    assert "lost 0, differing 0, trained twice 0" in done.stdout
    assert int(done.stdout.partition("faults ")[2].partition(",")[0]) > 10
