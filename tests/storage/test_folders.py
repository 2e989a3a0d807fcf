import json
import os

import pytest

from dg_batchformer.errors import InputError
from dg_batchformer.storage.folders import RunFolder, State, SweepFolder, atomic_write, write_text
from dg_batchformer.sweep.launches import end_launches


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    file = tmp_path / "a"
    write_text(file, "old")

    with pytest.raises(RuntimeError), atomic_write(file) as stream:  # noqa: PT012
        stream.write(b"half")
        raise RuntimeError

    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_states_follow_from_the_files_in_the_folder(tmp_path):
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


def test_the_reason_of_a_failure_is_written_if_possible(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.fail("no such \udcff image", "traceback")
    assert folder.failure() == "no such \\udcff image"

    (tmp_path / "file").touch()
    RunFolder(tmp_path / "file").fail("cannot be written")  # raises nothing


def test_a_folder_that_is_not_a_sweep_is_reported(tmp_path):
    with pytest.raises(InputError, match=r"is not a sweep folder: it has no sweep.json"):
        SweepFolder(tmp_path).read()
    write_text(tmp_path / "sweep.json", "{")
    with pytest.raises(InputError, match=r"sweep.json cannot be read"):
        SweepFolder(tmp_path).read()


def test_a_launch_removes_leftovers_of_killed_launches_and_nothing_else(tmp_path):
    folder = SweepFolder(tmp_path)
    folder.launches.mkdir()
    killed = folder.launches / "killed"
    killed.write_text(json.dumps({"host": "another"}))
    os.utime(killed, (0, 0))
    (alive := folder.launches / "alive").write_text(json.dumps({"host": "another"}))

    with folder.launching():
        assert not killed.exists()
        assert alive.exists()
        assert len(folder.launched()) == 2


@pytest.mark.parametrize("content", ["[" * 100_000, '{"pid": "../self"}', '{"pid": -1}', "\0", "[1]", ""])
def test_a_forged_lock_is_held_by_nobody(tmp_path, content):
    folder = SweepFolder(tmp_path)
    folder.launches.mkdir()
    (lock := folder.launches / "made_up").write_text(content)
    os.utime(lock, (0, 0))

    assert end_launches(folder) == (0, set())
