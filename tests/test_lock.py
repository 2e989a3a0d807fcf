import fcntl
import json
import os
import subprocess
import sys
import textwrap
import time

import pytest

from dg_batchformer import lock as lock_module
from dg_batchformer.lock import Busy
from dg_batchformer.store import RunFolder, State, write_text

HOLD = "import sys,time; from pathlib import Path; from dg_batchformer.store import RunFolder\n"
HOLD += "with RunFolder(Path(sys.argv[1])).lock(): print('held', flush=True); time.sleep(60)"


@pytest.fixture
def hold():
    """Return a function that starts a process which holds a run."""
    processes = []

    def start(path):
        processes.append(_holder(path))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def _holder(path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_live_owner_keeps_its_run_and_a_dead_ones_is_taken_over(tmp_path, hold):
    holder = hold(tmp_path)
    folder = RunFolder(tmp_path)
    with pytest.raises(Busy, match=f"process {holder.pid}"), folder.lock():
        pass
    holder.kill()
    holder.wait()

    with folder.lock():
        assert folder.state() is State.RUNNING
    assert not folder.lock_file.exists()


def test_of_several_who_take_over_a_dead_owners_run_one_succeeds(tmp_path, hold):
    holder = hold(tmp_path)
    holder.kill()
    holder.wait()
    race = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from dg_batchformer.lock import Busy
        from dg_batchformer.store import RunFolder
        sys.stdin.readline()
        try:
            with RunFolder(Path(sys.argv[1])).lock():
                print("mine", flush=True)
                sys.stdin.readline()
        except Busy:
            print("busy", flush=True)
        """
    )
    racers = [
        subprocess.Popen([sys.executable, "-c", race, str(tmp_path)], stdin=-1, stdout=-1, text=True, bufsize=1)
        for _ in range(6)
    ]
    for racer in racers:
        racer.stdin.write("go\n")

    answers = [racer.stdout.readline().strip() for racer in racers]
    for racer in racers:
        racer.communicate("end\n")

    assert sorted(answers) == ["busy"] * 5 + ["mine"]


def test_an_owner_elsewhere_lives_as_long_as_its_heart_beats(tmp_path):
    folder = RunFolder(tmp_path)
    write_text(folder.lock_file, json.dumps({"host": "elsewhere", "pid": 1}))
    assert folder.state() is State.RUNNING

    long_ago = time.time() - 301
    os.utime(folder.lock_file, (long_ago, long_ago))

    assert folder.state() is State.DUE
    with folder.lock():
        assert json.loads(folder.lock_file.read_text())["pid"] == os.getpid()


def test_one_who_takes_over_waits_for_another_who_is_at_it(tmp_path, hold):
    holder = hold(tmp_path)
    holder.kill()
    holder.wait()
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # the other
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as taker:
        try:
            deadline = time.monotonic() + 60
            while not list(tmp_path.glob(".lock.*")) and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.1)
            assert json.loads(RunFolder(tmp_path).lock_file.read_text())["pid"] == holder.pid

            os.close(descriptor)

            assert taker.stdout.readline() == "held\n"
        finally:
            taker.kill()


def test_without_flock_a_dead_owners_run_is_taken_over_too(tmp_path, hold, monkeypatch):
    def refuse(*arguments):
        raise OSError("not supported")

    monkeypatch.setattr(lock_module.fcntl, "flock", refuse)
    holder = hold(tmp_path)
    folder = RunFolder(tmp_path)
    with pytest.raises(Busy), folder.lock():
        pass
    holder.kill()
    holder.wait()

    with folder.lock() as lock:
        assert lock.is_mine


def test_a_lock_taken_over_is_neither_kept_alive_nor_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(lock_module, "HEARTBEAT_SECONDS", 0.01)
    folder = RunFolder(tmp_path)
    with folder.lock() as lock:
        lock.check()
        write_text(folder.lock_file, json.dumps({"host": "elsewhere", "pid": 7, "token": "other"}))
        time.sleep(0.1)  # for a beat that had begun
        os.utime(folder.lock_file, (1000, 1000))
        time.sleep(0.1)

        with pytest.raises(Busy, match=r"was taken over by process 7 on elsewhere .* it stops here"):
            lock.check()

    assert json.loads(folder.lock_file.read_text())["pid"] == 7
    assert folder.lock_file.stat().st_mtime == 1000


def test_the_heart_beats_while_a_run_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(lock_module, "HEARTBEAT_SECONDS", 0.01)
    folder = RunFolder(tmp_path)
    with folder.lock():
        os.utime(folder.lock_file, (1000, 1000))
        deadline = time.monotonic() + 10
        while folder.lock_file.stat().st_mtime == 1000 and time.monotonic() < deadline:
            time.sleep(0.01)

        assert time.time() - folder.lock_file.stat().st_mtime < 60
