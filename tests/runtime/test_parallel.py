"""Parallel work: same results in the same order, and an error if a process dies."""

import os
import signal
import subprocess
import sys
import time

import pytest

from dg_batchformer.errors import InputError
from dg_batchformer.runtime.parallel import in_every_core, usable_cores
from dg_batchformer.storage.processes import process_start

MANY = range(2000)


def test_results_of_other_processes_are_in_the_order_of_items():
    found = list(in_every_core(lambda item: (item**2, os.getpid()), MANY))

    assert [square for square, _ in found] == [item**2 for item in MANY]
    if usable_cores() > 1:
        assert os.getpid() not in {process for _, process in found}


def test_exceptions_of_workers_are_raised_in_the_caller():
    with pytest.raises(ZeroDivisionError):
        list(in_every_core(lambda item: 1 // (1000 - item), MANY))


@pytest.mark.skipif(usable_cores() == 1, reason="one core, so that no process is started")
def test_a_killed_worker_raises_a_one_sentence_error():
    with pytest.raises(InputError, match="a process that reads files was killed"):
        list(in_every_core(lambda item: os._exit(9) if item == 1000 else item, MANY))


@pytest.mark.skipif(usable_cores() == 1, reason="one core, so that no process is started")
def test_processes_end_when_their_parent_is_killed_so_that_its_pipes_close():
    code = """
import os, time
from dg_batchformer.runtime.parallel import in_every_core
def work(item):
    print(os.getpid(), flush=True)
    time.sleep(0.05)
list(in_every_core(work, range(10_000)))
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)

    parent.communicate(timeout=20)  # until the last holder of the pipe has ended

    deadline = time.monotonic() + 10
    while process_start(child) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not process_start(child)
    assert child != parent.pid


@pytest.mark.skipif(usable_cores() == 1, reason="one core, so that no process is started")
def test_a_signal_to_the_process_group_lets_the_parent_stop_in_order():
    code = """
import os, signal, sys, time
from dg_batchformer.runtime.parallel import in_every_core
asked = []
signal.signal(signal.SIGTERM, lambda *given: asked.append(1))
def work(item):
    time.sleep(0.05)
    return item
for item in in_every_core(work, range(10_000), at_once=1):
    print("begun", flush=True)
    if asked:
        sys.exit(7)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True, stderr=subprocess.PIPE
    )
    parent.stdout.readline()
    os.killpg(parent.pid, signal.SIGTERM)

    _, said = parent.communicate(timeout=30)

    assert parent.returncode == 7, said
