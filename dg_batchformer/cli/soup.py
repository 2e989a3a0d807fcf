"""``soup``: average the weights of a sweep's kept models."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dg_batchformer.cli.common import INCOMPLETE, OK, Verbs, add_plugins, import_plugins
from dg_batchformer.errors import InputError
from dg_batchformer.storage.folders import SweepFolder
from dg_batchformer.text.command import command
from dg_batchformer.text.spelling import one_form

if TYPE_CHECKING:
    from dg_batchformer.models.make_soups import MadeSoup
    from dg_batchformer.spec.run import RunSpec


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its options."""
    text = (
        "Average the weights of a sweep's kept models (--keep final) over the draws of each row, dataset, test "
        "environment and trial. The draws must have started from the same weights (hparam init). uniform averages all; "
        "greedy starts with the model that validates best and adds each one that does not lower the validation "
        "accuracy (DiWA, Rame et al., 2022). Soups are written to DIR/soups and appear as rows in the tables of DIR."
    )
    verb = verbs.add_parser("soup", help="average the weights of a sweep's kept models", description=text)
    verb.set_defaults(run=run, works=True)
    add = verb.add_argument
    add(
        "folder",
        type=Path,
        metavar="DIR",
        help="folder of a sweep that was trained with --keep final, a shared init, and two or more draws",
    )
    add("--kind", choices=("uniform", "greedy", "both"), default="both", help="which average (default: %(default)s)")
    add("--row", metavar="LABEL", type=one_form, help="average only this row (default: every row)")
    add("--data_dir", type=Path, metavar="DIR", help="folder of all datasets, such as DIR/PACS/sketch/dog/")
    add("--device", metavar="NAME", default="auto",
        help="auto, cpu, cuda, cuda:1, or a UUID from nvidia-smi -L (default: %(default)s)")  # fmt: skip
    add_plugins(verb)


def run(options: argparse.Namespace) -> int:
    """Write the soups of a sweep; print an error for each group of models that cannot be averaged."""
    from dg_batchformer.models.make_soups import KINDS, make_soups
    from dg_batchformer.models.members import kept_members, read_groups, refuse_unrelated
    from dg_batchformer.spec.run_folder import read_spec
    from dg_batchformer.training.console import Console
    from dg_batchformer.training.device import parse_device, prepare_device

    import_plugins(options.plugins)
    device = parse_device(options.device)
    prepare_device(device)
    sweep = SweepFolder(options.folder)
    groups = read_groups(sweep, options.row)
    kinds = KINDS if options.kind == "both" else (options.kind,)
    where = {"data_dir": options.data_dir, "device": device, "watcher": Console()}
    refused = []
    for group in groups:
        try:
            members = kept_members(group)
            refuse_unrelated(group, members)
        except InputError as error:
            refused.append(str(error))
            continue
        for made in make_soups(sweep, group, members, kinds, **where):
            print(f"{group.name}: {_said(made, read_spec(members[0]))}", flush=True)
    if len(refused) == len(groups):
        raise InputError(refused[0] if len(groups) == 1 else f"{refused[0]} (and so for all {len(groups)} groups)")
    for sentence in refused:
        print(f"error: {sentence}", file=sys.stderr)
    print(f"tables: {command('tables', options.folder)}")
    return INCOMPLETE if refused else OK


def _said(made: "MadeSoup", spec: "RunSpec") -> str:
    validation = made.evaluation.validation(spec.train_envs).accuracy
    tests = [f"{spec.facts.names[env]} {made.evaluation.accuracy[env, 'in']:.1%}" for env in spec.test_envs]
    deviation = f"; {made.precision.deviation}" if made.precision.deviation else ""
    return (
        f"soup-{made.kind} of {made.members} of {made.offered} models, validation {validation:.1%} "
        f"(best single {made.best_single:.1%}), {', '.join(tests)}{deviation}"
    )
