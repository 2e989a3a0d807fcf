"""Entry point of the command line: parses the arguments and runs the command."""

import argparse
import importlib
import sys
import traceback
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from dg_batchformer.cli.common import INCOMPLETE, INTERRUPTED, USAGE
from dg_batchformer.errors import InputError, RunFailed, as_sentence, did_you_mean, unknown
from dg_batchformer.storage.lock import Busy
from dg_batchformer.text.command import PROGRAM
from dg_batchformer.text.printable import one_line
from dg_batchformer.text.terminal import outlive_readers

# The order of --help; each command is a module of this package.
VERBS = (
    "train", "sweep", "status", "watch", "cancel", "tables", "compare", "report", "export", "pack", "explain",
    "predict", "soup", "list", "data",
)  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Run one command and return the exit status.

    An error is printed as one sentence, with ``--debug`` after its traceback.
    """
    options = parser(verb_of(arguments)).parse_args(arguments)
    if options.works or getattr(options, "output", None) is not None:
        outlive_readers()
    try:
        status = options.run(options)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if options.debug:
            traceback.print_exc()
        print(f"error: {_said(error)}", file=sys.stderr)
        is_usage = isinstance(error, InputError | OSError) and not isinstance(error, Busy | RunFailed)
        return USAGE if is_usage else INCOMPLETE


def _said(error: Exception) -> str:
    if isinstance(error, InputError):
        return as_sentence(error)
    if not isinstance(error, OSError):
        return f"{as_sentence(error)}; add --debug to see where"
    where = f"{error.filename}: " if error.filename is not None else ""
    return one_line(f"{where}{error.strerror or error}")


def verb_of(arguments: Sequence[str]) -> str:
    """Return the first argument that is not a flag, or ''."""
    return next((argument for argument in arguments if not argument.startswith("-")), "")


class _Parser(argparse.ArgumentParser):
    """An argument parser that suggests the nearest option or choice for a misspelled one."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback behind an error"
        )

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        options, left = super().parse_known_args(args, namespace)
        for word in left:
            if word.startswith("--"):
                flag = word.partition("=")[0]
                self.error(f"unknown option {flag}{did_you_mean(flag, self._flags())}")
        return options, left

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            name = action.metavar or "/".join(action.option_strings) or action.dest
            raise argparse.ArgumentError(None, str(unknown(str(name), value, map(str, action.choices))))

    def _flags(self) -> Iterable[str]:
        return [flag for action in self._actions for flag in action.option_strings if flag.startswith("--")]

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"error: {message}; see: {self.prog} --help\n")


def parser(verb: str = "") -> argparse.ArgumentParser:
    """Return the parser of one command, or of all if ``verb`` is not one.

    Importing every command takes longer than printing a table.
    """
    first = f"first steps: {PROGRAM} sweep sweeps/quickstart.yaml   (minutes)\n"
    first += f"             {PROGRAM} tables results/quickstart"
    program = _Parser(
        prog=PROGRAM,
        description="Domain generalization, from a sweep file to a table.",
        epilog=f"{first}\n\n{PROGRAM} VERB --help explains a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    program.set_defaults(debug=False, works=False)
    verbs = program.add_subparsers(metavar="VERB", required=True)
    for name in [name for name in VERBS if name == verb] or VERBS:
        importlib.import_module(f"dg_batchformer.cli.{name}").add_parser(verbs)
    return program
