import os
import socket
from pathlib import Path

import pytest

from dg_batchformer.errors import InputError
from dg_batchformer.storage.safe_read import Unreadable, open_regular, read_bytes, read_text


def _socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


KINDS = {
    "a FIFO": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a directory": os.mkdir,
    "a socket": _socket,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("read", [open_regular, read_bytes, read_text])
def test_anything_but_a_regular_file_is_refused_before_it_is_read(kind, read, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    KINDS[kind](path := Path("results.jsonl"))

    with pytest.raises(Unreadable, match=f"results.jsonl cannot be read: it is {kind}"):
        read(path, 100)


@pytest.mark.parametrize("read", [open_regular, read_bytes])
def test_a_file_larger_than_its_kind_is_refused_without_reading_it(read, tmp_path):
    with (path := tmp_path / "done").open("wb") as file:
        file.truncate(10**9)

    with pytest.raises(InputError, match="it is larger than 1,000 bytes"):
        read(path, 1000)


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path, monkeypatch):
    (path := tmp_path / "log.txt").write_bytes(b"x" * 10)
    read = os.read

    def grow_and_read(descriptor, size):
        path.write_bytes(path.read_bytes() + b"x" * 10)
        return read(descriptor, min(size, 10))

    monkeypatch.setattr(os, "read", grow_and_read)

    with pytest.raises(Unreadable, match="larger than 50 bytes"):
        read_bytes(path, 50)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc on this system")
def test_files_without_a_size_are_read_up_to_the_limit():
    assert b"VmRSS" in read_bytes("/proc/self/status", 2**16)

    with pytest.raises(Unreadable):
        read_bytes("/proc/self/status", 100)


def test_links_to_regular_files_are_read_and_line_endings_are_pythons(tmp_path):
    (tmp_path / "a").write_bytes(b"one\r\ntwo\r\xc3\xa9")
    (path := tmp_path / "b").symlink_to("a")

    assert read_text(path, 100) == "one\ntwo\né"
    assert read_bytes(path, 12) == b"one\r\ntwo\r\xc3\xa9"


def test_a_missing_file_raises_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "no", 100)
