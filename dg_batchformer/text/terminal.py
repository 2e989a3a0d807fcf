"""Standard output and error of this process: any character can be printed, and the reader may close the pipe.

Commands that only print stop when the pipe closes, like ``cat FILE | head``. Commands that train or download continue.
"""

import codecs
import errno
import io
import os
import re
import signal
import sys
from typing import Any

from dg_batchformer.text.printable import printable

_READER_LEFT = 128 + signal.SIGPIPE  # exit status in a shell of a program killed by a closed pipe
_ERRORS = "dg_batchformer.plain"
_PLAIN = {
    "±": "+/-", "×": "x", "·": "*", "→": "->", "−": "-", "–": "-", "—": "-", "…": "...", "≤": "<=", "≥": ">=",
    "†": "+", "‡": "++", "§": "#", "‘": "'", "’": "'", "“": '"', "”": '"', "\N{NO-BREAK SPACE}": " ",
}  # fmt: skip


def prepare_streams() -> None:
    """Open closed standard streams, and print characters outside their encoding as ASCII; call once, at start-up."""
    codecs.register_error(_ERRORS, _in_ascii)
    for name in ("stdin", "stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if stream is None:  # else the next open file would take its descriptor and receive the output
            descriptor = os.open(os.devnull, os.O_RDWR)
            stream = os.fdopen(descriptor, "r" if name == "stdin" else "w")
        setattr(sys, name, stream if name == "stdin" else _replaced(stream))
    _outlive(sys.stderr)  # a message that cannot be printed must not end the command


def outlive_readers() -> None:
    """Drop output that cannot be written from now on: a closed pipe or a full disk must not end the work."""
    _outlive(sys.stdout)


def _replaced(stream: Any) -> io.TextIOWrapper:
    """Rebuild a stream on an ``_Output``; standard error and ``python -u`` are unbuffered, and stay so."""
    stream.flush()
    output = _Output(stream.fileno(), "wb", closefd=False)
    below: Any = output if isinstance(stream.buffer, io.RawIOBase) else io.BufferedWriter(output)
    settings = {"line_buffering": stream.line_buffering, "write_through": stream.write_through}
    kind = _Bar if stream is sys.stderr else _Printed
    return kind(below, stream.encoding, _ERRORS, **settings)


def _outlive(stream: Any) -> None:
    output = getattr(getattr(stream, "buffer", None), "raw", getattr(stream, "buffer", None))
    if isinstance(output, _Output):
        output.is_outlived = True


class _Printed(io.TextIOWrapper):
    """Standard output, with control characters escaped so that untrusted text cannot move the cursor."""

    def write(self, text: str) -> int:
        super().write(printable(text))
        return len(text)


class _Bar(io.TextIOWrapper):
    """Standard error: like ``_Printed``, but progress bars may return to the line start and move up a line."""

    def write(self, text: str) -> int:
        super().write(_OF_BARS.sub(lambda part: part[1] or printable(part[0]), text))
        return len(text)


_OF_BARS = re.compile("(\r|\x1b\\[A)|[^\r\x1b]+|\x1b")


def clear_screen() -> None:
    """Clear the terminal behind standard output."""
    sys.stdout.flush()
    sys.stdout.buffer.write(b"\033[2J\033[H")


class _Output(io.FileIO):
    """The raw file below a stream. After a failed write, all further output goes to the null device."""

    is_outlived = False

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            if self.is_outlived:
                return len(data)
            if error.errno == errno.EPIPE:
                raise SystemExit(_READER_LEFT) from None
            raise OSError(error.errno, error.strerror, "standard output") from None


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that an encoding lacks by ASCII; an error handler for ``codecs``."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = "".join(_PLAIN.get(character, character) for character in error.object[error.start : error.end])
    return text.encode("ascii", "backslashreplace").decode("ascii"), error.end
