"""Standard output and error of this process: every character can be shown, and a reader may leave.

A verb that prints ends with its reader, as ``cat FILE | head`` does. A verb that works goes on without one.
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

_READER_LEFT = 128 + signal.SIGPIPE  # the status that a shell shows of a program that lost its reader
_ERRORS = "dg_batchformer.plain"
_PLAIN = {
    "±": "+/-", "×": "x", "·": "*", "→": "->", "−": "-", "–": "-", "—": "-", "…": "...", "≤": "<=", "≥": ">=",
    "†": "+", "‡": "++", "§": "#", "‘": "'", "’": "'", "“": '"', "”": '"', "\N{NO-BREAK SPACE}": " ",
}  # fmt: skip


def prepare_streams() -> None:
    """Open streams that the caller closed, and show what an encoding lacks in ASCII; once, as the process begins."""
    codecs.register_error(_ERRORS, _in_ascii)
    for name in ("stdin", "stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if stream is None:  # else the next file that anybody opens would get its number, and what is printed
            descriptor = os.open(os.devnull, os.O_RDWR)
            stream = os.fdopen(descriptor, "r" if name == "stdin" else "w")
        setattr(sys, name, stream if name == "stdin" else _replaced(stream))
    _outlive(sys.stderr)  # a message that nobody can read changes nothing


def outlive_readers() -> None:
    """From here on drop what cannot be printed: a closed pipe or a full disk behind a stream ends no work."""
    _outlive(sys.stdout)


def _replaced(stream: Any) -> io.TextIOWrapper:
    """Return the same stream on an ``_Output``; standard error and ``python -u`` have no buffer to keep."""
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
    """Text for people, programs and files: what others wrote into it cannot move the cursor or turn the writing."""

    def write(self, text: str) -> int:
        super().write(printable(text))
        return len(text)


class _Bar(io.TextIOWrapper):
    """Messages, and progress bars, which begin their line again and go up one."""

    def write(self, text: str) -> int:
        super().write(_OF_BARS.sub(lambda part: part[1] or printable(part[0]), text))
        return len(text)


_OF_BARS = re.compile("(\r|\x1b\\[A)|[^\r\x1b]+|\x1b")


def clear_screen() -> None:
    """Empty the terminal that standard output goes to."""
    sys.stdout.flush()
    sys.stdout.buffer.write(b"\033[2J\033[H")


class _Output(io.FileIO):
    """The file below a stream. What it cannot write is lost: then nothing more is tried."""

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
    """Spell out characters that an encoding lacks; an error handler of ``codecs``."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = "".join(_PLAIN.get(character, character) for character in error.object[error.start : error.end])
    return text.encode("ascii", "backslashreplace").decode("ascii"), error.end
