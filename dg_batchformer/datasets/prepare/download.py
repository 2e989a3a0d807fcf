"""Download a file over HTTP with resume, retries and checksum."""

import hashlib
import http.client
import os
import re
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from tqdm import tqdm

from dg_batchformer import __version__
from dg_batchformer.datasets.prepare.disk import amount, require_room, writing
from dg_batchformer.datasets.prepare.partial import Part
from dg_batchformer.datasets.prepare.sources import RemoteFile
from dg_batchformer.storage.safe_read import ARCHIVE, open_regular
from dg_batchformer.storage.safe_write import open_own

_CHUNK = 1 << 20
_LONGEST_WAIT = 60.0
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # status codes worth a retry
_PAGE = re.compile(rb"\s*<(!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_TITLE = re.compile(rb"<title[^>]*>\s*(.*?)\s*</title>", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Patience:
    """Retry policy of downloads.

    Args:
        attempts: number of consecutive failures without progress before an address is given up.
        first_wait: seconds before the second attempt; doubles for each further one.
        timeout: seconds without data before a connection is dropped.
        slowest: minimal rate in bytes per second; slower connections are dropped ...
        window: ... if the rate is that low over this many seconds.

    """

    attempts: int = 6
    first_wait: float = 1.0
    timeout: float = 30.0
    slowest: float = 1024.0
    window: float = 60.0


class Unavailable(Exception):
    """The file cannot be downloaded from this address; another mirror may work."""


class _Passing(Exception):
    """A temporary failure; ``wait`` is the delay in seconds that the server asked for."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = min(wait, _LONGEST_WAIT)


def fetch(file: RemoteFile, folder: Path, patience: Patience) -> Path:
    """Download a file to ``folder``, verify it, and return its path; resume a partial download.

    Raises Unavailable if the address does not deliver it, and InputError if it cannot be written.

    """
    target = folder / file.name
    if target.is_file():
        return target
    part = Part(target, file.address)
    bar = tqdm(initial=part.size, total=file.size, desc=file.name, unit="B", unit_scale=True, disable=None, leave=False)
    with bar:
        _persist(file, part, patience, bar)
    _check(file, part)
    with writing(folder):
        part.finish(target)
    return target


def _persist(file: RemoteFile, part: Part, patience: Patience, bar: tqdm) -> None:
    """Retry until the file is complete; raise Unavailable if the attempts are used up."""
    failures, furthest = 0, part.size
    while True:
        try:
            return _transfer(file, part, patience, bar)
        except _Passing as problem:
            failures = failures + 1 if part.size <= furthest else 1
            furthest = max(furthest, part.size)
            if failures >= patience.attempts:
                raise Unavailable(f"{file.address} was given up after {failures} attempts: {problem}") from None
            wait = min(max(problem.wait, patience.first_wait * 2 ** (failures - 1)), _LONGEST_WAIT)
            bar.set_postfix_str(f"{problem}; retry in {wait:.0f} s")
            time.sleep(wait)


def _transfer(file: RemoteFile, part: Part, patience: Patience, bar: tqdm) -> None:
    """Append the server's response to the part; raise _Passing if it ends early."""
    if part.is_whole:
        return
    with _open(file, part, patience) as response:
        total = _total(response, part.size)
        _refuse(file, response, total)
        if response.status != 206:
            part.discard()
        elif not part.continues(total):
            part.discard()
            raise _Passing("the file changed on the server")
        with writing(part.path.parent):
            part.remember(response.headers, total)
        if total is not None:
            require_room(part.path.parent, total - part.size, file.name)
        bar.total, bar.n = total, part.size
        bar.set_postfix_str("", refresh=False)
        _append(response, file, part, patience, bar)
    if total is not None and part.size != total:
        raise _Passing(f"the connection was cut after {amount(part.size)} of {amount(total)}")


def _open(file: RemoteFile, part: Part, patience: Patience) -> http.client.HTTPResponse:
    """Send the request, with a range if a part exists."""
    headers = {"User-Agent": f"dg_batchformer/{__version__}", "Accept-Encoding": "identity", **part.request_headers()}
    try:
        return urlopen(Request(file.address, headers=headers), timeout=patience.timeout)
    except HTTPError as error:
        error.close()
        if error.code == 416:  # the part is longer than the file, or of another one
            part.discard()
        if error.code in (*_PASSING, 416):
            raise _Passing(f"HTTP {error.code} {error.reason}", _asked_wait(error)) from None
        answer = "has a redirect loop" if 300 <= error.code < 400 else f"answers HTTP {error.code} {error.reason}"
        raise Unavailable(f"{file.address} {answer}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise Unavailable(f"{file.address} has no valid certificate ({reason.verify_message})") from None
        raise _Passing(f"no connection ({reason or type(reason).__name__})") from None


def _append(response: http.client.HTTPResponse, file: RemoteFile, part: Part, patience: Patience, bar: tqdm) -> None:
    rest = "" if bar.total is None else f"{file.name} needs {amount(bar.total - part.size)} more"
    with writing(part.path.parent, rest), open_own(part.path, "ab") as out:
        for chunk in _chunks(response, patience):
            if not out.tell() and _PAGE.match(chunk):
                part.discard()
                raise _web_page(file.address, chunk)
            out.write(chunk)
            bar.update(len(chunk))
        out.flush()
        os.fsync(out.fileno())


def _chunks(response: http.client.HTTPResponse, patience: Patience) -> Iterator[bytes]:
    """Yield chunks of the response; raise _Passing if it stalls or is too slow."""
    began, received = time.monotonic(), 0
    while True:
        try:
            chunk = response.read1(_CHUNK)
        except TimeoutError:
            raise _Passing(f"nothing arrived for {patience.timeout:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise _Passing(f"the connection was cut ({error or type(error).__name__})") from None
        if not chunk:
            return
        yield chunk
        received += len(chunk)
        passed = time.monotonic() - began
        if passed >= patience.window:
            if received < patience.slowest * passed:
                raise _Passing(f"less than {amount(patience.slowest)} per second arrived for {passed:.0f} s")
            began, received = time.monotonic(), 0


def _total(response: http.client.HTTPResponse, start: int) -> int | None:
    """Return the announced size of the whole file; raise Unavailable if the range is not the requested one."""
    if response.status != 206:
        length = response.headers.get("Content-Length", "")
        return int(length) if length.isdecimal() else None
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != start:
        raise Unavailable(f"{response.url} sends another range than requested")
    return int(match[2]) if match[2] != "*" else None


def _refuse(file: RemoteFile, response: http.client.HTTPResponse, total: int | None) -> None:
    """Raise Unavailable if the response cannot be the file."""
    if response.headers.get_content_type() == "text/html":
        raise _web_page(file.address, response.read1(_CHUNK))
    if None not in (total, file.size) and total != file.size:
        raise Unavailable(f"{file.address} offers {total:,} bytes instead of the published {file.size:,}")


def _web_page(address: str, start: bytes) -> Unavailable:
    title = _TITLE.search(start)
    named = f" titled {title[1].decode(errors='replace')[:80]!r}" if title else ""
    return Unavailable(f"{address} answers with a web page{named} instead of the file")


def _asked_wait(error: HTTPError) -> float:
    asked = error.headers.get("Retry-After", "")
    return float(asked) if asked.isdecimal() else 0.0


def _check(file: RemoteFile, part: Part) -> None:
    """Compare a complete file with its published size and SHA-256; discard it and raise Unavailable if they differ."""
    problem = ""
    if file.size not in (None, part.size):
        problem = f"{part.size:,} bytes instead of the published {file.size:,}"
    elif file.sha256 is not None:
        with open_regular(part.path, ARCHIVE) as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digest != file.sha256.lower():
            problem = f"a file with sha256 {digest} instead of the published {file.sha256}"
    if problem:
        part.discard()
        raise Unavailable(f"{file.address} gave {problem}")
