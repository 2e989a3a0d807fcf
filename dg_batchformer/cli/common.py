"""What verbs share: exit statuses, and types of options."""

import argparse
from typing import TypeAlias

from dg_batchformer.spec.options import RunOptions
from dg_batchformer.text.printable import printable

OK, INCOMPLETE, USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses: done; done, but runs failed, diverged or are somebody else's; wrong input; interrupted."""

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def positive(text: str) -> int:
    """Read a whole number of at least 1, as an option's type."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def add_plugins(verb: argparse.ArgumentParser) -> None:
    """Add the option that says which plug-ins a verb may import; what a folder names is not imported."""
    verb.add_argument("--plugins", nargs="+", default=[], metavar="MODULE",
        help="modules to import first: those that the run was trained with")  # fmt: skip


def add_log(verb: argparse.ArgumentParser) -> None:
    """Add the option that names the callbacks of runs."""
    verb.add_argument(
        "--log",
        nargs="+",
        default=[],
        metavar="NAME",
        help="follow runs live in tensorboard, wandb or mlflow, or by callbacks of installed packages and plug-ins",
    )


def run_options(options: argparse.Namespace) -> RunOptions:
    """Return what runs keep and what follows them."""
    return RunOptions(options.data_dir, options.keep, options.predictions, tuple(options.log))


def say(text: str) -> None:
    """Print what may hold names of files, which may hold anything."""
    print(printable(text))
