"""Format shell commands for users to copy and paste."""

import shlex
from collections.abc import Iterator
from pathlib import Path

PROGRAM = "python -m dg_batchformer"


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
        if len(values) == 1 and values[0].startswith("-"):
            yield f"--{name}={values[0]}"  # otherwise it would parse as an option
        else:
            yield from (f"--{name}", *values)
