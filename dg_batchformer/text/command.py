"""Format shell commands for users to copy and paste."""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

_INSTALLED = "dg-batchformer"


def started_as(path: str) -> str:
    """Return how to start this program again, from the path of the file that started it."""
    return _INSTALLED if Path(path).name == _INSTALLED else "python -m dg_batchformer"


PROGRAM = started_as(sys.argv[0])


def command(*operands: object, **options: object) -> str:
    """Format a shell command: subcommand and operands, then options.

    Args:
        operands: quoted for the shell.
        options: by name, in order; None, False and empty lists are omitted, and True is a flag without a value.

    """
    return f"{PROGRAM} {shlex.join([*map(_operand, operands), *_words(options)])}"


def _operand(value: object) -> str:
    text = str(value)
    return f"./{text}" if isinstance(value, Path) and text.startswith("-") else text


def _words(options: dict[str, object]) -> Iterator[str]:
    for name, value in options.items():
        if value is None or value is False or value == [] or value == ():
            continue
        values = [] if value is True else [str(one) for one in (value if isinstance(value, list | tuple) else [value])]
        if any(one.startswith("-") for one in values):
            yield from (f"--{name}={one}" for one in values)  # otherwise they would parse as options
        else:
            yield from (f"--{name}", *values)
