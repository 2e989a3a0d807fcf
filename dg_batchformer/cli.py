"""The command line: which verbs and options there are. What they do is in ``verbs.py``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dg_batchformer import verbs
from dg_batchformer.errors import InputError
from dg_batchformer.lock import Busy
from dg_batchformer.protocols import DEFAULT_PROTOCOL
from dg_batchformer.report.render import FORMATS
from dg_batchformer.report.selection import DEFAULT_METHODS, METHODS
from dg_batchformer.spec import COMPILE, DATA_PATHS, EVALUATE, PRECISIONS
from dg_batchformer.store import KEEP
from dg_batchformer.sweep.cluster import SETTINGS

_PROGRAM = "python -m dg_batchformer"


def main(arguments: Sequence[str]) -> int:
    """Run one verb; return the exit status, see ``verbs``."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return verbs.INCOMPLETE if isinstance(error, Busy) else verbs.USAGE
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output left, as `head` does
        return verbs.OK
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        return verbs.USAGE
    except KeyboardInterrupt:
        return verbs.INTERRUPTED


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        self.exit(verbs.USAGE, f"error: {message}; see: {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    first = f"first steps: {_PROGRAM} sweep sweeps/quickstart.yaml   (minutes)\n"
    first += f"             {_PROGRAM} tables results/quickstart"
    parser = _Parser(
        prog=_PROGRAM,
        description="Domain generalization, from a sweep file to a table.",
        epilog=f"{first}\n\n{_PROGRAM} VERB --help explains a verb.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs_of = parser.add_subparsers(metavar="VERB", required=True)
    _add_train(verbs_of)
    _add_sweep(verbs_of)
    _add_status(verbs_of)
    _add_cancel(verbs_of)
    _add_tables(verbs_of)
    _add_list(verbs_of)
    _add_data(verbs_of)
    return parser


def _add_train(verbs_of: Any) -> None:
    text = "Train one run. The same command again continues it, or says what came out."
    verb = verbs_of.add_parser("train", help="train one run, or go on with it", description=text)
    verb.set_defaults(run=verbs.train)
    add = verb.add_argument_group("what is trained (together they name the run)").add_argument
    add("--dataset", metavar="NAME", default="Shapes", help="see: list datasets (default: %(default)s)")
    add("--algorithm", metavar="NAME", default="ERM",
        help="at most one algorithm and any wrappers, as SWAD+CORAL+BF; see: list algorithms, list wrappers "
        "(default: %(default)s)")  # fmt: skip
    add("--test_envs", nargs="+", default=["0"], metavar="ENV",
        help="environments held out for testing, by index or name, as: sketch (default: the first)")  # fmt: skip
    add("--protocol", metavar="NAME", default=DEFAULT_PROTOCOL,
        help="backbone, steps and hparams of a publication, or 'quick'; see: list protocols "
        "(default: %(default)s)")  # fmt: skip
    add("--hparams", default="{}", metavar="JSON",
        help="hparams to set, as '{\"lr\": 1e-4}'; see: list hparams ALGORITHM")  # fmt: skip
    add("--hparams_seed", type=int, default=0, metavar="N",
        help="which random draw of hparams; 0: none, the defaults (default: 0)")  # fmt: skip
    add("--trial_seed", type=int, default=0, metavar="N",
        help="which repetition: other splits, other random draws (default: 0)")  # fmt: skip
    add("--seed", type=int, metavar="N",
        help="initial weights, order, augmentation (default: follows from the run, as in DomainBed)")  # fmt: skip
    add("--steps", type=int, metavar="N", help="updates (default: the protocol's)")
    add("--checkpoint_freq", type=int, metavar="N", help="updates between evaluations (default: the protocol's)")
    add("--holdout_fraction", type=float, default=0.2, metavar="SHARE",
        help="of every environment, kept for validation (default: %(default)s)")  # fmt: skip
    add("--evaluate", choices=EVALUATE, default="needed",
        help="needed: what selection and tables read; all: also the images trained on "
        "(default: %(default)s)")  # fmt: skip
    add("--precision", choices=PRECISIONS, default="auto",
        help="bf16: mixed precision in networks; auto: that where the device has it "
        "(default: %(default)s)")  # fmt: skip
    add("--data_path", choices=DATA_PATHS, default="cached",
        help="cached: image folders are decoded once and augmented on the device; exact: as DomainBed does, image by "
        "image (default: %(default)s)")  # fmt: skip
    add("--compile", choices=COMPILE, default="auto",
        help="of evaluation; auto: where it is known to pay (default: %(default)s)")  # fmt: skip
    add = verb.add_argument_group("where").add_argument
    add("--data_dir", type=Path, metavar="DIR", help="holds the folders of datasets, as DIR/PACS/sketch/dog/")
    add("--output_dir", type=Path, default=Path("train_output"), metavar="DIR",
        help="where this run is kept, one folder for each (default: %(default)s)")  # fmt: skip
    add("--keep", choices=KEEP, default="final",
        help="the weights to keep: none, of the model that the run returns, or of the one that validates best "
        "(default: %(default)s)")  # fmt: skip
    add("--device", metavar="NAME", default="auto", help="auto, cpu, cuda or cuda:1 (default: %(default)s)")


def _add_sweep(verbs_of: Any) -> None:
    text = (
        "Train the runs of a sweep file that are due. The same command again continues. Results go to "
        "RESULTS_DIR/NAME/ for a file NAME.yaml; sweeps/README.md explains sweep files."
    )
    verb = verbs_of.add_parser("sweep", help="train what is due of a sweep file", description=text)
    verb.set_defaults(run=verbs.sweep)
    add = verb.add_argument
    add("file", type=Path, metavar="FILE", help="as sweeps/quickstart.yaml")
    add("--launcher", choices=("local", "slurm", "dry_run"), default="local",
        help="local: train on this machine; slurm: submit job arrays and return; dry_run: print what is due, its "
        "price and one command for each run (default: %(default)s)")  # fmt: skip
    add("--devices", metavar="NAMES", default="auto",
        help="one worker for each name, as cpu,cpu or cuda:0,cuda:1; auto: one for each GPU, else up to 4 on the CPU "
        "(default: %(default)s)")  # fmt: skip
    add("--data_dir", type=Path, metavar="DIR", help="holds the folders of datasets, as DIR/PACS/sketch/dog/")
    add("--results_dir", type=Path, metavar="DIR", default=Path("results"),
        help="where sweeps are kept (default: %(default)s)")  # fmt: skip
    add("--retry", choices=("failed",), help="also start runs again that failed")
    add("--threads", type=_positive, metavar="N", help="of each local worker (default: the cores are shared out)")
    add = verb.add_argument_group("on SLURM").add_argument
    add("--slurm", nargs="+", default=[], metavar="KEY=VALUE",
        help=f"what every task gets, as partition=gpu gpus=1 cpus=8 mem=32G time=4:00:00; keys: {', '.join(SETTINGS)}",
    )  # fmt: skip
    add("--cluster", type=Path, metavar="FILE",
        help="YAML with such settings under slurm: (default: ~/.config/dg_batchformer.yaml, if there)")  # fmt: skip
    add("--runs_per_task", type=_positive, metavar="N",
        help="runs that one task trains, one after another on each of its devices (default: as many as fit its time "
        "limit, by what runs took so far; 1 until a run of every row is done)")  # fmt: skip


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def _add_status(verbs_of: Any) -> None:
    text = "Show how many runs are in which state, what failed and why, and the commands that come next."
    verb = verbs_of.add_parser("status", help="what has become of a sweep", description=text)
    verb.set_defaults(run=verbs.status)
    verb.add_argument("folder", type=Path, metavar="DIR", help="as results/quickstart")
    verb.add_argument("--watch", type=_positive, nargs="?", const=10, metavar="SECONDS",
        help="show it again every so many seconds (10), until nothing is left to wait for")  # fmt: skip


def _add_cancel(verbs_of: Any) -> None:
    text = (
        "End what trains a sweep: launches on this machine and its SLURM jobs. Runs are saved; the sweep command goes "
        "on from there."
    )
    verb = verbs_of.add_parser("cancel", help="end what trains a sweep, its runs saved", description=text)
    verb.set_defaults(run=verbs.cancel)
    verb.add_argument("folder", type=Path, metavar="DIR", help="as results/quickstart")


def _add_tables(verbs_of: Any) -> None:
    methods = "\n".join(f"  {method.name:<22}{method.about}" for method in METHODS.values())
    verb = verbs_of.add_parser(
        "tables",
        help="model-selection tables of a sweep",
        description="Print the tables of a sweep: test accuracy, mean and standard error over trials.",
        epilog=f"selection methods, which choose the step and the draw of hparams:\n{methods}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.set_defaults(run=verbs.tables)
    add = verb.add_argument
    add("folder", type=Path, metavar="DIR", help="as results/quickstart")
    add("--format", choices=tuple(FORMATS), default="text", help="what is printed (default: %(default)s)")
    add("--selection", nargs="+", choices=(*METHODS, "all"), default=list(DEFAULT_METHODS), metavar="METHOD",
        help=f"one or more of those below, or all (default: {' '.join(DEFAULT_METHODS)})")  # fmt: skip
    add("--output", type=Path, metavar="DIR", help="also write tables.txt, .tex, .md and .csv there")


def _add_list(verbs_of: Any) -> None:
    kinds = ("algorithms", "wrappers", "datasets", "protocols", "backbones", "hparams")
    text = "List what there is, one line each; with NAME, that one in full."
    verb = verbs_of.add_parser(
        "list", help="algorithms, wrappers, datasets, protocols, backbones, hparams", description=text
    )
    verb.set_defaults(run=verbs.list_)
    add = verb.add_argument
    add("kind", choices=kinds, metavar="KIND", help=f"one of {', '.join(kinds)}")
    add("name", nargs="?", metavar="NAME",
        help="the one to show in full; for hparams: the algorithm that has them, as SWAD+CORAL+BF (default: ERM)",
    )  # fmt: skip
    add("--dataset", metavar="NAME", default="PACS", help="for hparams, on which dataset (default: %(default)s)")
    add("--protocol", metavar="NAME", default=DEFAULT_PROTOCOL,
        help="for hparams, under which protocol (default: %(default)s)")  # fmt: skip


def _add_data(verbs_of: Any) -> None:
    verb = verbs_of.add_parser("data", help="decode a dataset into the pixel cache", description="Look after datasets.")
    actions = verb.add_subparsers(metavar="ACTION", required=True)
    text = (
        "Decode every image of a dataset once, into files that all runs on this machine share. Runs do so themselves "
        "when they first need it; do it beforehand where many are about to start. The cache lies in "
        "$XDG_CACHE_HOME/dg_batchformer, else ~/.cache/dg_batchformer, and may be deleted at any time."
    )
    action = actions.add_parser("cache", help="decode a dataset into the pixel cache", description=text)
    action.set_defaults(run=verbs.data_cache)
    add = action.add_argument
    add("name", metavar="NAME", help="a dataset of image folders; see: list datasets")
    add("--data_dir", type=Path, metavar="DIR", help="holds the folders of datasets, as DIR/PACS/sketch/dog/")
    add("--image_size", type=int, default=224, metavar="PIXELS",
        help="of the images that are evaluated (default: %(default)s)")  # fmt: skip
