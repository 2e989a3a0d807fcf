"""Workers killed at random cost time but no results."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system
TOOL = Path(__file__).parents[2] / "tools" / "chaos.py"


def test_48_disturbed_runs_equal_undisturbed_ones():
    done = subprocess.run(
        [sys.executable, TOOL, "--runs", "48", "--every", "0.6"], capture_output=True, text=True, timeout=1200
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "runs 48" in done.stdout
    assert "lost 0, differing 0, trained twice 0" in done.stdout
    assert int(done.stdout.partition("faults ")[2].partition(",")[0]) >= 5
