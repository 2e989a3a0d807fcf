import hashlib
import threading
from pathlib import Path

import pytest
from loopback import cut, serving, stalling, status, whole

from dg_batchformer.datasets.prepare import disk
from dg_batchformer.datasets.prepare.download import Patience, Unavailable, fetch
from dg_batchformer.datasets.prepare.partial import Part
from dg_batchformer.datasets.prepare.sources import RemoteFile
from dg_batchformer.errors import InputError

CONTENT = bytes(range(256)) * 1000
QUICK = Patience(attempts=3, first_wait=0.01, timeout=5)
ONCE = Patience(attempts=1, timeout=5)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with serving() as server:
        yield server


@pytest.fixture
def waits(monkeypatch):
    waited = []
    monkeypatch.setattr("dg_batchformer.datasets.prepare.download.time.sleep", waited.append)
    return waited


def _fetch(address, folder, patience=QUICK, **known):
    return fetch(RemoteFile("PACS.zip", address, **known), folder, patience).read_bytes()


def test_an_interrupted_download_resumes(server, tmp_path):
    address = server.serve("/f", cut(CONTENT, 100_000, etag='"1"'), whole(CONTENT, etag='"1"'))

    assert _fetch(address, tmp_path) == CONTENT

    _, headers = server.requests[1]
    assert headers["Range"] == "bytes=100000-"
    assert headers["If-Range"] == '"1"'
    assert [path.name for path in tmp_path.iterdir()] == ["PACS.zip"]


def test_a_later_command_resumes_too_and_does_not_fetch_a_complete_file_again(server, tmp_path):
    address = server.serve("/f", cut(CONTENT, 100_000), whole(CONTENT))

    with pytest.raises(
        Unavailable, match=r"given up after 1 attempts: the connection was cut after 97.7 KiB of 250 KiB"
    ):
        _fetch(address, tmp_path, ONCE)
    assert not (tmp_path / "PACS.zip").exists()
    assert _fetch(address, tmp_path, ONCE) == CONTENT
    assert server.requests[1][1]["Range"] == "bytes=100000-"
    assert _fetch(address, tmp_path, ONCE) == CONTENT
    assert len(server.requests) == 2


@pytest.mark.parametrize("ranges", [True, False])
def test_parts_of_two_versions_never_mix(server, tmp_path, ranges):
    newer = CONTENT[::-1]
    address = server.serve("/f", cut(CONTENT, 100_000, etag='"1"'), whole(newer, etag='"2"', ranges=ranges))

    assert _fetch(address, tmp_path) == newer


def test_without_a_version_a_changed_size_is_noticed(server, tmp_path):
    newer = CONTENT[::-1] + b"more"
    address = server.serve("/f", cut(CONTENT, 100_000), whole(newer))

    assert _fetch(address, tmp_path) == newer


def test_parts_of_two_mirrors_never_mix(server, tmp_path):
    with pytest.raises(Unavailable):
        _fetch(server.serve("/a", cut(CONTENT, 100_000)), tmp_path, ONCE)

    assert _fetch(server.serve("/b", whole(CONTENT[::-1])), tmp_path) == CONTENT[::-1]


def test_a_web_page_as_answer_keeps_the_partial_download(server, tmp_path):
    page = whole(b"<html><title>Quota exceeded</title></html>", kind="text/html")
    address = server.serve("/f", cut(CONTENT, 100_000, etag='"1"'), page, whole(CONTENT, etag='"1"'))

    with pytest.raises(Unavailable, match="Quota exceeded"):
        _fetch(address, tmp_path)
    assert _fetch(address, tmp_path) == CONTENT
    assert server.requests[2][1]["Range"] == "bytes=100000-"


def test_a_complete_partial_download_is_not_fetched_again(server, tmp_path, monkeypatch):
    address = server.serve("/f", whole(CONTENT))
    with monkeypatch.context() as killed:
        killed.setattr(Part, "finish", lambda part, target: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            _fetch(address, tmp_path)

    assert _fetch(address, tmp_path) == CONTENT
    assert len(server.requests) == 1


def test_a_partial_download_longer_than_the_file_is_discarded(server, tmp_path):
    address = server.serve("/f", status(416), whole(CONTENT))
    part = Part(tmp_path / "PACS.zip", address)
    part.path.write_bytes(CONTENT * 2)

    assert _fetch(address, tmp_path) == CONTENT


def test_a_busy_server_is_retried_with_growing_delays(server, tmp_path, waits):
    address = server.serve("/f", status(503), status(503), status(429, Retry_After="7"), whole(CONTENT))

    assert _fetch(address, tmp_path, Patience()) == CONTENT
    assert waits == [1, 2, 7]


def test_a_server_that_stays_busy_is_given_up(server, tmp_path, waits):
    with pytest.raises(Unavailable, match=r"/f was given up after 6 attempts: HTTP 503 Service Unavailable"):
        _fetch(server.serve("/f", status(503)), tmp_path, Patience())
    assert waits == [1, 2, 4, 8, 16]


def test_a_slow_connection_with_progress_is_not_given_up(server, tmp_path, waits):
    def piece(end):
        def answer(request):
            start = int(request.headers.get("Range", "bytes=0-")[6:-1])
            request.send_response(206 if start else 200)
            request.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
            request.send_header("Content-Length", str(len(CONTENT) - start))
            request.end_headers()
            request.wfile.write(CONTENT[start:end])

        return answer

    address = server.serve("/f", *(piece(end) for end in range(20_000, len(CONTENT) + 20_000, 20_000)))

    assert _fetch(address, tmp_path) == CONTENT
    assert len(server.requests) > 2 * QUICK.attempts
    assert set(waits) == {QUICK.first_wait}


@pytest.mark.parametrize(
    ("every", "patience", "message"),
    [
        (None, Patience(attempts=1, timeout=0.2), r"nothing arrived for 0.2 s"),
        (
            0.02,
            Patience(attempts=1, timeout=5, slowest=1024, window=0.2),
            r"less than 1 KiB per second arrived",
        ),
    ],
)
def test_a_stalled_server_times_out(server, tmp_path, every, patience, message):
    ended = threading.Event()
    address = server.serve("/f", stalling(CONTENT, 10, ended, every))

    try:
        with pytest.raises(Unavailable, match=message):
            _fetch(address, tmp_path, patience)
    finally:
        ended.set()


def test_an_unreachable_server_is_reported(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with serving() as server:
        address = server.address
    with pytest.raises(Unavailable, match=r"no connection \(.*refused"):
        _fetch(f"{address}/f", tmp_path, ONCE)


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/zip"])
def test_a_web_page_is_not_an_archive(server, tmp_path, kind):
    page = b"<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head></html>"
    address = server.serve("/f", whole(page, kind=kind))

    with pytest.raises(
        Unavailable, match=r"with a web page titled 'Google Drive - Quota exceeded' instead of the file"
    ):
        _fetch(address, tmp_path)
    assert len(server.requests) == 1
    assert not list(tmp_path.iterdir())


def test_redirects_are_followed_but_not_in_a_circle(server, tmp_path):
    there = server.serve("/there", whole(CONTENT))
    assert _fetch(server.serve("/f", status(302, Location=there)), tmp_path) == CONTENT

    (tmp_path / "PACS.zip").unlink()
    server.serve("/a", status(302, Location=server.address + "/b"))
    server.serve("/b", status(302, Location=server.address + "/a"))
    with pytest.raises(Unavailable, match="/a has a redirect loop"):
        _fetch(server.address + "/a", tmp_path)


def test_a_file_is_compared_with_its_published_checksum_and_size(server, tmp_path):
    address = server.serve("/f", whole(CONTENT))
    right = hashlib.sha256(CONTENT).hexdigest()

    with pytest.raises(Unavailable, match=rf"gave a file with sha256 {right} instead of the published {'0' * 64}"):
        _fetch(address, tmp_path, sha256="0" * 64)
    with pytest.raises(Unavailable, match=r"offers 256,000 bytes instead of the published 5"):
        _fetch(address, tmp_path, size=5)
    assert not list(tmp_path.iterdir())
    assert _fetch(address, tmp_path, size=len(CONTENT), sha256=right.upper()) == CONTENT


def test_a_disk_that_is_too_small_is_reported_before_the_download(server, tmp_path, monkeypatch):
    usage = disk.shutil.disk_usage(tmp_path)._replace(free=1024)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda folder: usage)

    with pytest.raises(InputError, match=rf"PACS.zip needs 250 KiB in {tmp_path}, where 1 KiB are free"):
        _fetch(server.serve("/f", whole(CONTENT)), tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_disk_that_fills_up_is_reported_in_one_sentence(server, tmp_path, monkeypatch):
    address = server.serve("/f", whole(CONTENT))
    monkeypatch.setattr(Part, "discard", lambda part: None)

    def open_full(path, mode):
        return open("/dev/full", mode)  # noqa: PTH123

    monkeypatch.setattr("dg_batchformer.datasets.prepare.download.open_own", open_full)

    with pytest.raises(
        InputError, match=r"is full \(PACS.zip needs 250 KiB more\); free space there, or give a --data_dir"
    ):
        _fetch(address, tmp_path)
