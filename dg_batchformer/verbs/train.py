"""``train``: one run."""

import argparse
import json
from pathlib import Path

from dg_batchformer.errors import InputError
from dg_batchformer.own_data import find_dataset
from dg_batchformer.protocols import DEFAULT_PROTOCOL
from dg_batchformer.report.our_sweep import read_run
from dg_batchformer.report.selection import METHODS
from dg_batchformer.spec import COMPILE, DATA_PATHS, EVALUATE, PRECISIONS, RunSpec, refuse_other_run
from dg_batchformer.store import KEEP, RunFolder, State
from dg_batchformer.verbs.common import INCOMPLETE, INTERRUPTED, OK, Verbs


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its options."""
    text = "Train one run. The same command again continues it, or says what came out."
    verb = verbs.add_parser("train", help="train one run, or go on with it", description=text)
    verb.set_defaults(run=run, works=True)
    add = verb.add_argument_group("what is trained (together they name the run)").add_argument
    add(
        "--dataset",
        metavar="NAME",
        default="Shapes",
        help="see: list datasets; or data of your own, a folder or manifest in --data_dir (default: %(default)s)",
    )
    add("--algorithm", metavar="NAME", default="ERM",
        help="at most one algorithm and any wrappers, as SWAD+CORAL+BF; see: list algorithms, list wrappers "
        "(default: %(default)s)")  # fmt: skip
    add("--test_envs", nargs="+", metavar="ENV",
        help="environments to test on, by name or by index from 0, as: sketch; where domains of your own are called by "
        "numbers, a number is a name (default: all that --train_envs leaves, else the first)")  # fmt: skip
    add("--train_envs", nargs="+", metavar="ENV",
        help="environments to train on (default: all that are not tested on)")  # fmt: skip
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
    add("--plugins", nargs="+", default=[], metavar="MODULE",
        help="modules on the Python path, or in this folder, that define further algorithms")  # fmt: skip
    add = verb.add_argument_group("where").add_argument
    add("--data_dir", type=Path, metavar="DIR", help="holds the folders of datasets, as DIR/PACS/sketch/dog/, and "
        "data of your own: DIR/NAME/domain/class/ or DIR/NAME.csv")  # fmt: skip
    add("--output_dir", type=Path, default=Path("train_output"), metavar="DIR",
        help="where this run is kept, one folder for each (default: %(default)s)")  # fmt: skip
    add("--keep", choices=KEEP, default="final",
        help="the weights to keep: none, of the model that the run returns, or of the one that validates best "
        "(default: %(default)s)")  # fmt: skip
    add("--predictions", action="store_true",
        help="also write predictions.npz: what the model that the run returns predicts, image by image, on every "
        "split that it evaluates")  # fmt: skip
    add("--device", metavar="NAME", default="auto", help="auto, cpu, cuda or cuda:1 (default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    """Train one run, or go on with it."""
    spec = run_spec(options)
    folder = RunFolder(options.output_dir)
    refuse_other_run(folder, spec)
    if folder.state().is_final:
        print(f"{folder.path} holds this run, {folder.state()}; give another --output_dir to train it again")
        if options.predictions and not folder.predictions_file.exists():
            print("note: it was trained without --predictions, which are written at the end of a run")
        return _say_outcome(spec, folder)
    from dg_batchformer.training.console import Console
    from dg_batchformer.training.device import parse_device, prepare_device
    from dg_batchformer.training.preflight import check_runs
    from dg_batchformer.training.run import train_run
    from dg_batchformer.training.stop import Interrupted, StopOnSignal

    device = parse_device(options.device)
    prepare_device(device)
    check_runs([spec], options.data_dir)
    console = Console()
    try:
        train_run(
            spec,
            folder,
            data_dir=options.data_dir,
            device=device,
            keep=options.keep,
            watcher=console,
            stop=StopOnSignal(),
            predictions=options.predictions,
        )
    except Interrupted as interrupted:
        print(f"interrupted: {interrupted}")
        return INTERRUPTED
    finally:
        console.end()
    return _say_outcome(spec, folder)


def run_spec(options: argparse.Namespace) -> RunSpec:
    """Return the run that the options of ``train`` ask for."""
    try:
        hparams = json.loads(options.hparams)
    except (ValueError, RecursionError) as error:
        raise InputError(f"--hparams is not JSON ({error}); write it as '{{\"lr\": 1e-4}}'") from None
    if not isinstance(hparams, dict):
        raise InputError(f"--hparams takes a JSON object such as '{{\"lr\": 1e-4}}', got {options.hparams}")
    found = find_dataset(options.dataset, options.data_dir)._asdict()
    names = [name for name in RunSpec.__dataclass_fields__ if name not in ("hparams", *found)]
    return RunSpec(**{name: getattr(options, name) for name in names}, **found, hparams=hparams)


def _say_outcome(spec: RunSpec, folder: RunFolder) -> int:
    """Say in plain words what came out of a run that is trained."""
    state = folder.state()
    if state is State.DIVERGED:
        print("diverged: loss or metrics are not finite; a smaller lr may help")
    else:
        run = read_run(spec, folder)
        names = spec.facts.names
        for method in (METHODS["training-domain"], METHODS["oracle"]):
            scores = {env: method.select([run], env, len(names)) for env in spec.test_envs}
            found = {names[env]: score for env, score in scores.items() if score is not None}
            said = ", ".join(f"{name}: {score.test:.1%}" for name, score in found.items())
            for score in list(found.values())[:1]:  # the same step for all
                print(f"test accuracy on {said} (step {score.step}, selected by {method.title})")
    print(f"records: {folder.records_file}")
    return OK if state is State.DONE else INCOMPLETE
