"""``train``: train one run, or resume it."""

import argparse
import json
from pathlib import Path
from typing import Any

from dg_batchformer.catalog.custom import find_dataset
from dg_batchformer.cli.common import INCOMPLETE, INTERRUPTED, OK, Verbs, add_log, import_plugins, positive, run_options
from dg_batchformer.errors import InputError, RunFailed, as_sentence
from dg_batchformer.results.our_sweep import read_run
from dg_batchformer.spec.launch import OF_RUN, kept_options
from dg_batchformer.spec.protocols import DEFAULT_PROTOCOL
from dg_batchformer.spec.run import COMPILE, DATA_PATHS, EVALUATE, PRECISIONS, RunRequest, RunSpec
from dg_batchformer.spec.run_folder import default_folder, refuse_other_run
from dg_batchformer.storage.folders import KEEP, TRAINED, RunFolder, State, refuse_misplaced


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its options."""
    text = "Train one run. Repeat the command to resume it, or to print its result."
    verb = verbs.add_parser("train", help="train one run, or resume it", description=text)
    verb.set_defaults(run=run, works=True, default=verb.get_default)
    add = verb.add_argument_group("the run (these options determine its ID)").add_argument
    add(
        "--dataset",
        metavar="NAME",
        default="Shapes",
        help="a name from list datasets, or your own folder or manifest in --data_dir (default: %(default)s)",
    )
    add("--algorithm", metavar="NAME", default="ERM",
        help="at most one algorithm and any wrappers, such as SWAD+CORAL+BF; see: list algorithms, list wrappers "
        "(default: %(default)s)")  # fmt: skip
    add("--test_envs", nargs="+", action="extend", metavar="ENV",
        help="environments to test on, by name or by index from 0; if the domains of your data are numbers, a number "
        "is a name (default: all that are not in --train_envs, or the first)")  # fmt: skip
    add("--train_envs", nargs="+", action="extend", metavar="ENV",
        help="environments to train on (default: all others)")  # fmt: skip
    add("--protocol", metavar="NAME", default=DEFAULT_PROTOCOL,
        help="backbone, steps and hparams of a publication, or 'quick' or 'laptop'; see: list protocols "
        "(default: %(default)s)")  # fmt: skip
    add("--hparams", default="{}", metavar="JSON",
        help="hparams to set, such as '{\"lr\": 1e-4}'; see: list hparams ALGORITHM")  # fmt: skip
    add("--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE",
        help="the same without JSON, such as lr=1e-4 bf_layers=2")  # fmt: skip
    add("--backbone", metavar="NAME", help="the hparam backbone; see: list backbones")
    add("--hparams_seed", type=int, default=0, metavar="N",
        help="number of the random draw of hparams; 0 uses the defaults (default: 0)")  # fmt: skip
    add("--trial_seed", type=int, default=0, metavar="N",
        help="number of the repetition, which chooses splits and random draws (default: 0)")  # fmt: skip
    add("--seed", type=int, metavar="N",
        help="seed of initial weights, data order and augmentation (default: derived from the run, as in "
        "DomainBed)")  # fmt: skip
    add("--steps", type=int, metavar="N", help="number of updates (default: the protocol's)")
    add("--checkpoint_freq", type=int, metavar="N", help="updates between evaluations (default: the protocol's)")
    add("--holdout_fraction", type=float, default=0.2, metavar="SHARE",
        help="share of every environment that is held out for validation (default: %(default)s)")  # fmt: skip
    add("--evaluate", choices=EVALUATE, default="needed",
        help="needed: the splits that selection and tables read; all: the training images too "
        "(default: %(default)s)")  # fmt: skip
    add("--precision", choices=PRECISIONS, default="auto",
        help="bf16: mixed precision in networks; tf32: matrix products on GPUs rounded to 10 bits; auto: bf16 if the "
        "device supports it (default: %(default)s)")  # fmt: skip
    add("--data_path", choices=DATA_PATHS,
        help="cached: decode image folders once and augment on the device; exact: decode image by image, as DomainBed "
        "does; features: train on the cached output of a frozen prefix (default: the protocol's, mostly "
        "cached)")  # fmt: skip
    add("--compile", choices=COMPILE, default="auto",
        help="compile evaluation, and on a GPU also training and augmentation; auto: where it is expected to pay "
        "off (default: %(default)s)")  # fmt: skip
    add("--imbalance", metavar="SETTING",
        help="subsample the training images of training environments, such as long_tail:50, step:10:reversed, "
        "domain:10 or TotalHeavyTail; natural keeps all, and records accuracies by class (default: none)")  # fmt: skip
    add("--plugins", nargs="+", action="extend", default=[], metavar="MODULE",
        help="modules on the Python path, or in this folder, that define more algorithms; fork:PATH is a checkout of a "
        "fork of DomainBed, whose algorithms are called FORK/ALGORITHM")  # fmt: skip
    add = verb.add_argument_group("where it runs and what it keeps").add_argument
    add("--data_dir", type=Path, metavar="DIR", help="folder of all datasets, such as DIR/PACS/sketch/dog/, and of "
        "your own data: DIR/NAME/domain/class/ or DIR/NAME.csv")  # fmt: skip
    add("--output_dir", type=Path, metavar="DIR",
        help=f"folder of this run alone (default: a folder in {TRAINED}/, named after the run)")  # fmt: skip
    add("--keep", choices=KEEP, default="final",
        help="the weights to keep: none, final: those of the returned model, best: those that validate best "
        "(default: %(default)s)")  # fmt: skip
    add("--predictions", action="store_true",
        help="also write predictions.npz: the predictions of the returned model for every image of every evaluated "
        "split")  # fmt: skip
    add_log(verb)
    add("--device", metavar="NAME", default="auto",
        help="auto, cpu, cuda, cuda:1, or a UUID from nvidia-smi -L (default: %(default)s)")  # fmt: skip
    add("--threads", type=positive, metavar="N",
        help="CPU threads; the last digits of sums depend on their number (default: one per core)")  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Train one run, resume it, or print its result."""
    spec = run_spec(options)
    given = options.output_dir
    folder = default_folder(spec, options.algorithm) if given is None else RunFolder(given)
    refuse_misplaced(folder, spec.id)
    from dg_batchformer.training.lines import outcome

    try:
        refuse_other_run(folder, spec)
    except InputError:
        _check_names(spec)  # first report what another folder would not fix
        raise
    if folder.state().is_final:
        print(f"{folder.path} already has this run, {folder.state()}; give another --output_dir to train it again")
        if options.keep != "none" and not folder.model_file.exists():
            print("note: it was trained without --keep, so it has no model")
        if options.predictions and not folder.predictions_file.exists():
            print("note: it was trained without --predictions, which are only written at the end of a run")
        print("\n".join(outcome(spec, folder)))
    elif not _train(options, spec, folder):
        return INTERRUPTED
    return OK if read_run(spec, folder).state is State.DONE else INCOMPLETE


def _train(options: argparse.Namespace, spec: RunSpec, folder: RunFolder) -> bool:
    """Train a run to its end; return false if interrupted."""
    from dg_batchformer.training.foreground import prepare, train_on_console
    from dg_batchformer.training.stop import Interrupted, StopOnSignal

    asked = run_options(options)
    device = prepare(spec, asked, options.device, options.threads)
    told = {"row": options.algorithm, "launch": kept_options(_given(options), folder.path)}
    try:
        train_on_console(spec, folder, asked, device=device, stop=StopOnSignal(), **told)
    except Interrupted as interrupted:
        print(f"interrupted: {interrupted}")
        return False
    except InputError:
        raise
    except Exception as error:
        raise RunFailed(f"{as_sentence(error)}; its traceback is in {folder.error_file}") from error
    return True


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """Return the given options that the command to resume the run repeats."""
    given = {name: getattr(options, name) for name in OF_RUN}
    return {name: value for name, value in given.items() if value != options.default(name)}


def _check_names(spec: RunSpec) -> None:
    from dg_batchformer.hparams_registry import resolve_hparams
    from dg_batchformer.plugins.load import load_plugins_of

    load_plugins_of(spec)
    resolve_hparams(spec)


def run_spec(options: argparse.Namespace) -> RunSpec:
    """Return the run that the options of ``train`` ask for; first import plug-ins, which may add the names in it."""
    import_plugins(options.plugins)
    found = find_dataset(options.dataset, options.data_dir)._asdict()
    names = [name for name in RunSpec.__dataclass_fields__ if name not in ("hparams", *found)]
    return RunRequest(**{name: getattr(options, name) for name in names}, **found, hparams=_hparams(options)).resolve()


def _hparams(options: argparse.Namespace) -> dict[str, Any]:
    """Return the hparams of ``--hparams``, ``--set`` and ``--backbone``."""
    try:
        hparams = json.loads(options.hparams)
    except (ValueError, RecursionError) as error:
        raise InputError(f"--hparams is not JSON ({error}); write it as '{{\"lr\": 1e-4}}'") from None
    if not isinstance(hparams, dict):
        raise InputError(f"--hparams takes a JSON object such as '{{\"lr\": 1e-4}}', got {options.hparams}")
    given = [_assignment(text) for text in options.set]
    given += [] if options.backbone is None else [("backbone", options.backbone)]
    for name, value in given:
        if name in hparams and hparams[name] != value:
            raise InputError(f"hparam {name} is given twice, as {hparams[name]!r} and as {value!r}; keep one")
        hparams[name] = value
    return hparams


def _assignment(text: str) -> tuple[str, bool | int | float | str]:
    """Parse NAME=VALUE; whether that hparam allows the value is checked when hparams are resolved."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise InputError(f"--set takes NAME=VALUE, such as lr=1e-4, got {text!r}")
    try:
        read = json.loads(value.lower() if value.lower() in ("true", "false") else value)
    except ValueError:
        return name, value
    return name, read if isinstance(read, bool | int | float) else value
