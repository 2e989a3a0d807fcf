import json
import os
import subprocess
import sys
import textwrap
import time

import pytest

from dg_batchformer.errors import InputError
from dg_batchformer.lock import Busy
from dg_batchformer.store import RunFolder, State, SweepFolder, atomic_write, write_text

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


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    file = tmp_path / "a"
    write_text(file, "old")

    with pytest.raises(RuntimeError), atomic_write(file) as stream:  # noqa: PT012
        stream.write(b"half")
        raise RuntimeError

    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_states_follow_from_what_is_there(tmp_path):
    folder = RunFolder(tmp_path / "run")
    assert folder.state() is State.DUE
    with folder.lock():
        assert folder.state() is State.RUNNING
        assert folder.state(locked=True) is State.DUE
    folder.checkpoint_file.touch()
    assert folder.state() is State.INTERRUPTED
    write_text(folder.error_file, "no such image\ntraceback")
    assert folder.state() is State.FAILED
    assert folder.failure() == "no such image"
    write_text(folder.done_file, json.dumps({"outcome": "done"}))
    assert folder.state() is State.DONE
    write_text(folder.done_file, json.dumps({"outcome": "diverged"}))
    assert folder.state() is State.DIVERGED
    assert State.DIVERGED.is_final


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


def test_a_folder_that_is_no_sweep_says_so(tmp_path):
    with pytest.raises(InputError, match=r"is no sweep folder: it has no sweep.json"):
        SweepFolder(tmp_path).read()
    write_text(tmp_path / "sweep.json", "{")
    with pytest.raises(InputError, match=r"sweep.json cannot be read"):
        SweepFolder(tmp_path).read()
