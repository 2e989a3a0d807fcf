"""Start times of processes, with and without /proc."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from dg_batchformer.storage import processes


@pytest.fixture(params=["proc", "ps"])
def _system(request, monkeypatch):
    if request.param == "ps":
        monkeypatch.setattr(processes, "_PROC", Path("/nowhere"))
    elif not Path("/proc/self").exists():
        pytest.skip("this system has no /proc")


@pytest.mark.usefixtures("_system")
def test_the_start_of_a_process_is_constant_until_it_ends():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = processes.process_start(child.pid)

    assert started
    assert processes.process_start(child.pid) == started
    child.kill()  # not waited for: a zombie
    deadline = time.monotonic() + 20
    while processes.process_start(child.pid) is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes.process_start(child.pid) is None
    child.communicate()
    assert processes.process_start(child.pid) is None


@pytest.mark.usefixtures("_system")
@pytest.mark.parametrize("pid", [None, "1", True, -5, 10**30])
def test_a_number_that_is_not_a_process_has_no_start(pid):
    assert processes.process_start(pid) is None
