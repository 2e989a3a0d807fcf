"""The command line: reads what was asked and hands it to its verb, see ``verbs/``."""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from dg_batchformer.errors import InputError
from dg_batchformer.lock import Busy
from dg_batchformer.verbs import (
    cancel,
    compare,
    data,
    explain,
    lists,
    predict,
    report,
    soup,
    status,
    sweep,
    tables,
    train,
)
from dg_batchformer.verbs.common import INCOMPLETE, INTERRUPTED, OK, USAGE

_PROGRAM = "python -m dg_batchformer"
# In the order of --help.
_VERBS = (train, sweep, status, cancel, tables, compare, report, explain, predict, soup, lists, data)


def main(arguments: Sequence[str]) -> int:
    """Run one verb; return the exit status."""
    options = _parser().parse_args(arguments)
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


def _parser() -> argparse.ArgumentParser:
    first = f"first steps: {_PROGRAM} sweep sweeps/quickstart.yaml   (minutes)\n"
    first += f"             {_PROGRAM} tables results/quickstart"
    parser = _Parser(
        prog=_PROGRAM,
        description="Domain generalization, from a sweep file to a table.",
        epilog=f"{first}\n\n{_PROGRAM} VERB --help explains a verb.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for verb in _VERBS:
        verb.add_parser(verbs)
    return parser
