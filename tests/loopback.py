"""A local web server that misbehaves as a test asks for."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]


class Loopback:
    """Answers by path: one answer per request, then the last one forever.

    Attributes:
        address: of the server, without a path.
        requests: (path, headers) in the order in which they came.

    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.answers: dict[str, list[Answer]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []

    def serve(self, path: str, *answers: Answer) -> str:
        """Set the answers for a path; return its address."""
        self.answers[path] = list(answers)
        return self.address + path


@contextmanager
def serving() -> Iterator[Loopback]:
    """Run a server inside a ``with`` block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            place.requests.append((self.path, dict(self.headers)))
            answers = place.answers.get(self.path, [status(404)])
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            with suppress(ConnectionError):  # the client left
                answer(self)
            self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        place = Loopback(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield place
        finally:
            server.shutdown()
            thread.join()


def whole(content: bytes, *, etag: str = "", kind: str = "application/octet-stream", ranges: bool = True) -> Answer:
    """Answer correctly, with the requested range if the version has not changed."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range", "") if ranges else ""
        same = request.headers.get("If-Range", etag) == etag
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and same else 0
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        _headers(request, len(content) - start, etag, kind)
        request.wfile.write(content[start:])

    return answer


def cut(content: bytes, after: int, *, etag: str = "") -> Answer:
    """Declare the full length and close the connection after some bytes."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        _headers(request, len(content), etag, "application/octet-stream")
        request.wfile.write(content[:after])

    return answer


def stalling(content: bytes, after: int, ended: threading.Event, every: float | None = None) -> Answer:
    """Declare the full length, then send nothing, or a byte now and then, until the test has ended."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        cut(content, after)(request)
        request.wfile.flush()
        while not ended.wait(every):
            request.wfile.write(b".")

    return answer


def status(code: int, **headers: str) -> Answer:
    """Answer with a status only."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


def _headers(request: BaseHTTPRequestHandler, length: int, etag: str, kind: str) -> None:
    request.send_header("Content-Length", str(length))
    request.send_header("Content-Type", kind)
    if etag:
        request.send_header("ETag", etag)
    request.end_headers()
