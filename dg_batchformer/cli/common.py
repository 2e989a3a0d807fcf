"""Exit statuses, option types and options that several commands share."""

import argparse
from collections.abc import Sequence
from typing import TypeAlias

from dg_batchformer.spec.names import module_names
from dg_batchformer.spec.options import RunOptions
from dg_batchformer.text.printable import printable

OK, INCOMPLETE, USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses: success; runs failed, diverged or are trained by another launch; wrong input; interrupted."""

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def positive(text: str) -> int:
    """Parse a whole number of at least 1; an argparse ``type``."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def add_plugins(verb: argparse.ArgumentParser) -> None:
    """Add ``--plugins``, the modules to import; modules that a run folder names are never imported by themselves."""
    verb.add_argument("--plugins", nargs="+", action="extend", default=[], metavar="MODULE",
        help="modules and forks to import first: those that the run was trained with")  # fmt: skip


def import_plugins(plugins: Sequence[str]) -> None:
    """Import plug-ins, which comes before names of theirs are resolved; without any, PyTorch is not imported either."""
    if plugins:
        from dg_batchformer.plugins.load import load_plugins

        load_plugins(module_names(plugins))


def add_log(verb: argparse.ArgumentParser) -> None:
    """Add ``--log``, the callbacks of runs."""
    verb.add_argument(
        "--log",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="log to tensorboard, wandb or mlflow while training, or call callbacks of packages and plug-ins",
    )


def run_options(options: argparse.Namespace) -> RunOptions:
    """Return the options of runs that do not change their results: what is kept and which callbacks follow."""
    return RunOptions(options.data_dir, options.keep, options.predictions, tuple(options.log))


def say(text: str) -> None:
    """Print text with control characters escaped; file names may contain any character."""
    print(printable(text))
