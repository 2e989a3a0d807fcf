import os

import pytest

from dg_batchformer.errors import InputError
from dg_batchformer.storage.folders import State, SweepFolder, atomic_write, write_text
from dg_batchformer.storage.safe_write import open_own


@pytest.mark.parametrize("mode", ["a", "ab", "w", "x"])
def test_nothing_is_written_through_a_symbolic_link(mode, tmp_path):
    target = tmp_path / "target"
    target.write_text("mine")
    (tmp_path / "link").symlink_to(target)

    with pytest.raises((InputError, FileExistsError)):
        open_own(tmp_path / "link", mode)

    assert target.read_text() == "mine"


def test_a_link_is_reported_in_one_sentence(tmp_path):
    (tmp_path / "log.txt").symlink_to(tmp_path / "nowhere")

    with pytest.raises(InputError, match=r"cannot write to .*log\.txt: it is a symbolic link") as raised:
        open_own(tmp_path / "log.txt", "a")

    assert "\n" not in str(raised.value)
    assert not (tmp_path / "nowhere").exists()


def test_a_fifo_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InputError, match="not a regular file"):
        open_own(tmp_path / "fifo", "a")

    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(InputError, match="not a regular file"):
        open_own(tmp_path / "fifo", "a")
    os.close(reader)


def test_files_are_appended_to_and_created_as_open_does(tmp_path):
    for text in ("one\n", "two\n"):
        with open_own(tmp_path / "file", "a", encoding="utf-8") as file:
            file.write(text)

    assert (tmp_path / "file").read_text() == "one\ntwo\n"
    assert (tmp_path / "file").stat().st_mode & 0o111 == 0


def test_a_whole_file_replaces_a_link_and_leaves_its_target(tmp_path):
    target = tmp_path / "target"
    target.write_text("mine")
    (tmp_path / "spec.json").symlink_to(target)

    write_text(tmp_path / "spec.json", "new")

    assert (target.read_text(), (tmp_path / "spec.json").read_text()) == ("mine", "new")


def test_a_states_log_that_is_a_link_is_left_alone(tmp_path):
    target, folder = tmp_path / "target", SweepFolder(tmp_path / "sweep")
    folder.path.mkdir()
    folder.states_log.symlink_to(target)

    folder.log_final("0123", State.DONE, 1.0)

    assert not target.exists()


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_new_files_have_the_permissions_of_the_umask(umask, tmp_path):
    before = os.umask(umask)
    try:
        with SweepFolder(tmp_path / "sweep").launching(), SweepFolder(tmp_path / "sweep").run("0").lock():
            with atomic_write(tmp_path / "sweep" / "file") as file:
                file.write(b"")
            rights = {path: path.stat().st_mode for path in (tmp_path / "sweep").rglob("*")}
    finally:
        os.umask(before)

    assert rights
    assert not [path for path, mode in rights.items() if mode & umask]
