"""The command line: reads what was asked and hands it to its verb, see ``verbs/``."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from dg_batchformer.errors import InputError
from dg_batchformer.lock import Busy
from dg_batchformer.verbs.common import INCOMPLETE, INTERRUPTED, OK, USAGE

_PROGRAM = "python -m dg_batchformer"
# In the order of --help; each is a module of ``verbs``.
_VERBS = (
    "train", "sweep", "status", "cancel", "tables", "compare", "report", "explain", "predict", "soup", "list", "data",
)  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Run one verb; return the exit status."""
    options = _parser(arguments[:1]).parse_args(arguments)
    try:
        return options.run(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return INCOMPLETE if isinstance(error, Busy) else USAGE
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output left, as `head` does
        return OK
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        return INTERRUPTED


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"error: {message}; see: {self.prog} --help\n")


def _parser(verb: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Return the parser of a verb alone, or of all where none is known: to load them all takes longer than a table."""
    first = f"first steps: {_PROGRAM} sweep sweeps/quickstart.yaml   (minutes)\n"
    first += f"             {_PROGRAM} tables results/quickstart"
    parser = _Parser(
        prog=_PROGRAM,
        description="Domain generalization, from a sweep file to a table.",
        epilog=f"{first}\n\n{_PROGRAM} VERB --help explains a verb.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for name in [name for name in _VERBS if name in verb] or _VERBS:
        importlib.import_module(f"dg_batchformer.verbs.{name}").add_parser(verbs)
    return parser
