"""A real checkout of DomainBed, if given: its algorithms here, and our wrappers there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "drive_domainbed.py"


@pytest.mark.system
def test_a_real_checkout_runs_here_and_runs_our_wrappers():
    checkout = os.environ.get("DOMAINBED_DIR")
    if not checkout:
        pytest.skip("set DOMAINBED_DIR to a checkout of facebookresearch/DomainBed")

    done = subprocess.run([sys.executable, str(TOOL), checkout], capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
