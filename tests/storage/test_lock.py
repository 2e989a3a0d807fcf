import fcntl
import json
import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from dg_batchformer.storage import lock as lock_module
from dg_batchformer.storage.folders import RunFolder, State, write_text
from dg_batchformer.storage.lock import Busy

HOLD = "import sys,time; from pathlib import Path; from dg_batchformer.storage.folders import RunFolder\n"
HOLD += "with RunFolder(Path(sys.argv[1])).lock(): print('held', flush=True); time.sleep(60)"


@pytest.fixture
def hold():
    """Return a function that starts a process that locks a run."""
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


def test_a_live_owner_keeps_its_run_and_a_dead_owner_loses_it(tmp_path, hold):
    holder = hold(tmp_path)
    folder = RunFolder(tmp_path)
    with pytest.raises(Busy, match=f"process {holder.pid}"), folder.lock():
        pass
    holder.kill()
    holder.wait()

    with folder.lock():
        assert folder.state() is State.RUNNING
    assert not folder.lock_file.exists()


def test_one_of_several_processes_takes_over_the_run_of_a_dead_owner(tmp_path, hold):
    holder = hold(tmp_path)
    holder.kill()
    holder.wait()
    race = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from dg_batchformer.storage.lock import Busy
        from dg_batchformer.storage.folders import RunFolder
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


def test_an_owner_on_another_machine_lives_as_long_as_its_heartbeat(tmp_path):
    folder = RunFolder(tmp_path)
    write_text(folder.lock_file, json.dumps({"host": "elsewhere", "pid": 1}))
    assert folder.state() is State.RUNNING

    long_ago = time.time() - 301
    os.utime(folder.lock_file, (long_ago, long_ago))

    assert folder.state() is State.DUE
    with folder.lock():
        assert json.loads(folder.lock_file.read_text())["pid"] == os.getpid()


def test_a_process_that_takes_over_waits_for_another_that_does(tmp_path, hold):
    holder = hold(tmp_path)
    holder.kill()
    holder.wait()
    command = [sys.executable, "-c", f"print('taking', flush=True); {HOLD}", str(tmp_path)]
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # the other
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as taker:
        try:
            assert taker.stdout.readline() == "taking\n"
            time.sleep(0.5)
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
        time.sleep(0.1)  # time for a heartbeat that had begun
        os.utime(folder.lock_file, (1000, 1000))
        time.sleep(0.1)

        with pytest.raises(Busy, match=r"was taken over by process 7 on elsewhere .* this process stops"):
            lock.check()

    assert json.loads(folder.lock_file.read_text())["pid"] == 7
    assert folder.lock_file.stat().st_mtime == 1000


def test_the_heartbeat_continues_while_a_run_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(lock_module, "HEARTBEAT_SECONDS", 0.01)
    folder = RunFolder(tmp_path)
    with folder.lock():
        os.utime(folder.lock_file, (1000, 1000))
        deadline = time.monotonic() + 10
        while folder.lock_file.stat().st_mtime == 1000 and time.monotonic() < deadline:
            time.sleep(0.01)

        assert time.time() - folder.lock_file.stat().st_mtime < 60


def test_a_lock_needs_no_hard_links(tmp_path, hold, monkeypatch):
    def refuse(*arguments, **given):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    holder = hold(tmp_path)
    holder.kill()
    holder.wait()
    folder = RunFolder(tmp_path)

    with folder.lock() as lock:
        assert lock.is_mine
        with pytest.raises(Busy), folder.lock():
            pass


def test_a_lock_being_written_is_held_and_an_abandoned_empty_one_is_taken_over(tmp_path):
    folder = RunFolder(tmp_path)
    folder.lock_file.touch()
    with pytest.raises(Busy, match="another process"), folder.lock():
        pass

    long_ago = time.time() - lock_module.UNNAMED_SECONDS - 1
    os.utime(folder.lock_file, (long_ago, long_ago))

    with folder.lock() as lock:
        assert lock.is_mine


def test_a_lock_taken_in_between_is_restored(tmp_path, monkeypatch):
    file = tmp_path / "lock"
    owners = iter([{"pid": 1}, {"pid": 2}])
    write_text(file, json.dumps({"pid": 2}))
    monkeypatch.setattr(lock_module, "is_held", lambda file: False)
    monkeypatch.setattr(lock_module, "owner_of", lambda file: next(owners))

    lock_module.remove_stale(file)

    assert json.loads(file.read_text()) == {"pid": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_a_lock_is_not_written_through_a_symbolic_link(tmp_path):
    target, folder = tmp_path / "target", RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.lock_file.symlink_to(target)  # leads nowhere

    with folder.lock() as lock:
        assert lock.is_mine

    assert not target.exists()


def test_a_waiting_process_gets_the_lock_next(tmp_path, monkeypatch):
    monkeypatch.setattr(lock_module, "_WAIT_SECONDS", 0.01)
    file, order = tmp_path / "lock", []

    def wait():
        with lock_module.held(file, waiting=lambda: order.append("waits") if not order else None):
            order.append("second")

    with lock_module.held(file):
        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.1)
        order.append("first")
    waiting.join()

    assert order == ["waits", "first", "second"]
    assert not file.exists()
