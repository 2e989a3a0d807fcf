"""The command line: parses a verb and calls one function. ``status`` and ``tables`` import no torch."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dg_batchformer.errors import InputError
from dg_batchformer.protocols import DEFAULT_PROTOCOL
from dg_batchformer.report.render import FORMATS
from dg_batchformer.report.selection import DEFAULT_METHODS, METHODS
from dg_batchformer.spec import EVALUATE, RunSpec, refuse_other_run
from dg_batchformer.store import KEEP, RunFolder, State, SweepFolder

OK, INCOMPLETE, USAGE, INTERRUPTED = 0, 1, 2, 130
_RESULTS = Path("results")


def main(arguments: Sequence[str]) -> int:
    """Run one verb; return the exit status: 0 done, 1 failures listed, 2 wrong input, 130 interrupted."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output left, as `head` does
        return OK
    except KeyboardInterrupt:
        return INTERRUPTED


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        self.exit(USAGE, f"error: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="dg-batchformer", description="Domain generalization, from a sweep file to a table.")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    _add_train(verbs)
    _add_sweep(verbs)
    _add_status(verbs)
    _add_tables(verbs)
    _add_list(verbs)
    return parser


# -- train ------------------------------------------------------------------------------------------------------


def _add_train(verbs: Any) -> None:
    verb = verbs.add_parser("train", help="train one run", description="Train one run; run again to continue it.")
    verb.set_defaults(run=_train)
    add = verb.add_argument
    add("--dataset", default="Shapes", help="see: list datasets (default: %(default)s)")
    add(
        "--algorithm",
        default="ERM",
        help="an algorithm with any wrappers, as SWAD+CORAL+BF (default: %(default)s)",
    )
    add("--test_envs", nargs="+", default=["0"], metavar="ENV", help="held out, by index or name (default: 0)")
    add("--protocol", default=DEFAULT_PROTOCOL, help="see: list protocols (default: %(default)s)")
    add("--hparams", default="{}", metavar="JSON", help="hparams to set, as '{\"lr\": 1e-4}'")
    add("--hparams_seed", type=int, default=0, help="which random draw of hparams; 0: the defaults")
    add("--trial_seed", type=int, default=0, help="which splits and draws (default: %(default)s)")
    add("--seed", type=int, help="everything else (default: derived from the run)")
    add("--steps", type=int, help="updates (default: the protocol's)")
    add("--checkpoint_freq", type=int, help="updates between evaluations (default: the protocol's)")
    add(
        "--holdout_fraction",
        type=float,
        default=0.2,
        help="held out of every environment (default: %(default)s)",
    )
    add(
        "--evaluate",
        choices=EVALUATE,
        default="needed",
        help="all: also the images trained on (default: %(default)s)",
    )
    add("--data_dir", type=Path, help="folder that holds the folders of datasets")
    add(
        "--output_dir",
        type=Path,
        default=Path("train_output"),
        help="where the run is kept (default: %(default)s)",
    )
    add(
        "--keep",
        choices=KEEP,
        default="final",
        help="the model to keep (default: %(default)s)",
    )
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")


def _train(options: argparse.Namespace) -> int:
    spec = _spec_from(options)
    folder = RunFolder(options.output_dir)
    refuse_other_run(folder, spec)
    from dg_batchformer.training.console import Console
    from dg_batchformer.training.device import parse_device, prepare_device
    from dg_batchformer.training.preflight import check_runs
    from dg_batchformer.training.run import train_run
    from dg_batchformer.training.stop import Interrupted, StopOnSignal

    device = parse_device(options.device)
    prepare_device(device)
    if folder.state().is_final:
        print(f"{folder.path} holds this run, {folder.state()}; give another --output_dir to train it again")
        return OK
    check_runs([spec], options.data_dir)
    console = Console()
    try:
        state = train_run(
            spec,
            folder,
            data_dir=options.data_dir,
            device=device,
            keep=options.keep,
            watcher=console,
            stop=StopOnSignal(),
        )
    except Interrupted as interrupted:
        print(f"interrupted: {interrupted}")
        return INTERRUPTED
    finally:
        console.end()
    print(_sentence(spec, folder, state))
    return OK if state is State.DONE else INCOMPLETE


def _spec_from(options: argparse.Namespace) -> RunSpec:
    try:
        hparams = json.loads(options.hparams)
    except ValueError as error:
        raise InputError(f"--hparams is not JSON ({error}); write it as '{{\"lr\": 1e-4}}'") from None
    if not isinstance(hparams, dict):
        raise InputError(f"--hparams takes a JSON object such as '{{\"lr\": 1e-4}}', got {options.hparams}")
    names = [name for name in RunSpec.__dataclass_fields__ if name != "hparams"]
    return RunSpec(**{name: getattr(options, name) for name in names}, hparams=hparams)


def _sentence(spec: RunSpec, folder: RunFolder, state: State) -> str:
    """Say in plain words what came out."""
    from dg_batchformer.report.collect import CollectedRun, read_records

    if state is State.DIVERGED:
        return f"diverged: loss or metrics are not finite; a smaller lr may help. Records: {folder.records_file}"
    run = CollectedRun(spec.algorithm, spec, state, read_records(folder, {}))
    parts = []
    for env in spec.test_envs if len(spec.test_envs) == 1 else ():
        for name in ("training-domain", "oracle"):
            score = METHODS[name].select([run], env, len(spec.facts.names))
            if score is not None:
                parts.append(f"{score.test:.1%} by {METHODS[name].title} (step {score.step})")
        parts = [f"test accuracy on {spec.facts.names[env]}: {'; '.join(parts)}"]
    return ". ".join([*parts, f"records: {folder.records_file}"])


# -- sweep ------------------------------------------------------------------------------------------------------


def _add_sweep(verbs: Any) -> None:
    text = "Run what is due of a sweep file; run again to continue. Results go to RESULTS_DIR/<name of the file>/."
    verb = verbs.add_parser("sweep", help="run what is due of a sweep file", description=text)
    verb.set_defaults(run=_sweep)
    add = verb.add_argument
    add("file", type=Path, metavar="FILE", help="as sweeps/quickstart.yaml")
    add(
        "--launcher",
        choices=("local", "dry_run"),
        default="local",
        help="dry_run prints commands (default: %(default)s)",
    )
    add(
        "--devices",
        default="auto",
        help="one worker each: auto, cpu,cpu or cuda:0,cuda:1 (default: %(default)s)",
    )
    add("--data_dir", type=Path, help="folder that holds the folders of datasets")
    add("--results_dir", type=Path, default=_RESULTS, help="where sweeps are kept (default: %(default)s)")
    add("--retry", choices=("failed",), help="also start failed runs again")


def _sweep(options: argparse.Namespace) -> int:
    from dg_batchformer.sweep.expand import declaration, expand
    from dg_batchformer.sweep.plan import plan
    from dg_batchformer.sweep_spec import load_sweep

    sweep = load_sweep(options.file)
    runs = expand(sweep)
    from dg_batchformer.training.preflight import check_runs, parse_devices

    check_runs([run.spec for run in runs], options.data_dir)
    devices = parse_devices(options.devices)
    folder = SweepFolder(options.results_dir / sweep.name)
    planned = plan(folder, runs, retry_failed=options.retry == "failed")
    print(f"{sweep.name}: {planned.text(len(devices))}", flush=True)
    if options.launcher == "dry_run":
        from dg_batchformer.sweep.launchers.dry_run import commands

        print("\n".join(commands(folder, planned.due, options.data_dir)))
        return OK
    folder.write(declaration(sweep, runs))
    return _launch(folder, planned.due, devices, options)


def _launch(folder: SweepFolder, due: Sequence[Any], devices: Sequence[str], options: argparse.Namespace) -> int:
    from dg_batchformer.sweep.console import SweepConsole
    from dg_batchformer.sweep.launchers.local import LocalLauncher

    console = SweepConsole(due)
    launcher = LocalLauncher(folder, devices, options.data_dir, console)
    endings = launcher.launch(due)
    console.close()
    if launcher.interrupted:
        print("interrupted: every run is saved; the same command goes on from there")
        return INTERRUPTED
    print(f"tables: python -m dg_batchformer tables {folder.path}")
    if endings["busy"]:
        print(f"{endings['busy']} runs are being trained by another launch; follow: status {folder.path}")
    if endings["failed"]:
        print(f"{endings['failed']} runs failed: python -m dg_batchformer status {folder.path}")
    return INCOMPLETE if endings["failed"] or endings["busy"] else OK


# -- status, tables, list ---------------------------------------------------------------------------------------


def _add_status(verbs: Any) -> None:
    verb = verbs.add_parser(
        "status", help="what has become of a sweep", description="Show the state of a sweep's runs."
    )
    verb.set_defaults(run=_status)
    verb.add_argument("folder", type=Path, metavar="DIR", help="as results/quickstart")


def _status(options: argparse.Namespace) -> int:
    from dg_batchformer.sweep.status import has_failures, status_text

    folder = SweepFolder(options.folder)
    print(status_text(folder))
    return INCOMPLETE if has_failures(folder) else OK


def _add_tables(verbs: Any) -> None:
    text = "Print the model-selection tables of a sweep, or write them in every format."
    verb = verbs.add_parser("tables", help="model-selection tables of a sweep", description=text)
    verb.set_defaults(run=_tables)
    add = verb.add_argument
    add("folder", type=Path, metavar="DIR", help="as results/quickstart")
    add("--format", choices=tuple(FORMATS), default="text", help="to print (default: %(default)s)")
    methods = "; ".join(f"{method.name}: {method.about}" for method in METHODS.values())
    add("--selection", nargs="+", choices=(*METHODS, "all"), default=list(DEFAULT_METHODS), metavar="METHOD",
        help=f"default: {' '.join(DEFAULT_METHODS)}; all, or any of: {methods}")  # fmt: skip
    add("--output", type=Path, metavar="FOLDER", help="also write tables.{txt,tex,md,csv} there")


def _tables(options: argparse.Namespace) -> int:
    from dg_batchformer.report.collect import collect
    from dg_batchformer.report.render import SUFFIXES
    from dg_batchformer.report.table import build_sections
    from dg_batchformer.store import write_text

    collection = collect(SweepFolder(options.folder))
    sections = build_sections(collection, list(METHODS) if "all" in options.selection else options.selection)
    print(FORMATS[options.format](sections), end="")
    for file, lines in collection.skipped.items():
        print(f"skipped {lines} unreadable lines of {file}", file=sys.stderr)
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        for name, render in FORMATS.items():
            file = options.output / f"tables.{SUFFIXES[name]}"
            write_text(file, render(sections))
            print(f"wrote {file}")
    return OK


def _add_list(verbs: Any) -> None:
    kinds = ("algorithms", "wrappers", "datasets", "protocols", "backbones", "hparams")
    text = "List what there is, one line each; with NAME one in full. hparams NAME: those of an algorithm on a dataset."
    verb = verbs.add_parser("list", help="algorithms, wrappers, datasets, protocols, hparams", description=text)
    verb.set_defaults(run=_list)
    add = verb.add_argument
    add("kind", choices=kinds, metavar="KIND", help=", ".join(kinds))
    add("name", nargs="?", metavar="NAME", help="one of them in full")
    add("--dataset", default="PACS", help="for hparams (default: %(default)s)")
    add("--protocol", default=DEFAULT_PROTOCOL, help="for hparams (default: %(default)s)")


def _list(options: argparse.Namespace) -> int:
    from dg_batchformer.listing import list_kind

    print(list_kind(options.kind, options.name, dataset=options.dataset, protocol=options.protocol))
    return OK
