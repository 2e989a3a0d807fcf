"""What the verbs do, one function each: parsed options in, exit status out. ``status`` and ``tables`` import no torch.

Exit status: 0 done; 1 done, but runs failed, diverged or are somebody else's; 2 wrong input; 130 interrupted.
"""

import argparse
import json
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from dg_batchformer.declaration import SweepRun, declaration, read_declaration
from dg_batchformer.errors import InputError
from dg_batchformer.report.collect import CollectedRun, collect, read_records
from dg_batchformer.report.render import FORMATS, SUFFIXES
from dg_batchformer.report.selection import METHODS
from dg_batchformer.report.table import build_sections
from dg_batchformer.spec import RunSpec, refuse_other_run
from dg_batchformer.store import RunFolder, State, SweepFolder, write_text
from dg_batchformer.sweep.cluster import load_cluster
from dg_batchformer.sweep.expand import expand
from dg_batchformer.sweep.jobs import cancel_jobs, log_jobs, queued_states, read_jobs, submitting
from dg_batchformer.sweep.launches import end_launches, is_launched
from dg_batchformer.sweep.plan import Plan, counted, plan, run_states
from dg_batchformer.sweep.status import status_text
from dg_batchformer.sweep_spec import SweepSpec, load_sweep

OK, INCOMPLETE, USAGE, INTERRUPTED = 0, 1, 2, 130


def train(options: argparse.Namespace) -> int:
    """Train one run, or go on with it."""
    spec = run_spec(options)
    folder = RunFolder(options.output_dir)
    refuse_other_run(folder, spec)
    if folder.state().is_final:
        print(f"{folder.path} holds this run, {folder.state()}; give another --output_dir to train it again")
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
    names = [name for name in RunSpec.__dataclass_fields__ if name != "hparams"]
    return RunSpec(**{name: getattr(options, name) for name in names}, hparams=hparams)


def _say_outcome(spec: RunSpec, folder: RunFolder) -> int:
    """Say in plain words what came out of a run that is trained."""
    state = folder.state()
    if state is State.DIVERGED:
        print("diverged: loss or metrics are not finite; a smaller lr may help")
    elif len(spec.test_envs) == 1:
        [env] = spec.test_envs
        run = CollectedRun(spec.algorithm, spec, state, read_records(folder, {}))
        for method in (METHODS["training-domain"], METHODS["oracle"]):
            score = method.select([run], env, len(spec.facts.names))
            if score is not None:
                where = f"{spec.facts.names[env]}: {score.test:.1%} (step {score.step}, selected by {method.title})"
                print(f"test accuracy on {where}")
    print(f"records: {folder.records_file}")
    return OK if state is State.DONE else INCOMPLETE


def sweep(options: argparse.Namespace) -> int:
    """Start what is due of a sweep file, or print what would be started."""
    asked = load_sweep(options.file)
    runs = expand(asked)
    _check_names(options.file, asked, runs)
    folder = SweepFolder(options.results_dir / asked.name)
    if options.launcher == "slurm":
        return _sweep_on_slurm(options, asked, runs, folder)
    from dg_batchformer.training.preflight import check_runs, parse_devices

    devices = parse_devices(options.devices)
    planned = _plan(options, folder, runs, len(devices))
    if options.launcher == "dry_run":
        from dg_batchformer.sweep.launchers.dry_run import commands

        print("note: a dry run starts nothing, and has not looked for data and weights")
        for command in commands(folder, planned.due, options.data_dir):
            print(command)
        return OK
    check_runs([run.spec for run in planned.due], options.data_dir)
    folder.write(declaration(asked, runs))
    if not _launch(folder, planned.due, devices, options):
        print("interrupted: every run is saved; the same command goes on from there")
        return INTERRUPTED
    return _say_what_lacks(folder, runs)


def _plan(
    options: argparse.Namespace,
    folder: SweepFolder,
    runs: Sequence[SweepRun],
    workers: int,
    queued: Collection[str] = (),
) -> Plan:
    """Plan a sweep and say so."""
    planned = plan(folder, runs, retry_failed=options.retry == "failed", queued=queued)
    print(f"{folder.path.name}: {planned.text(workers)}", flush=True)
    if undeclared := planned.states.undeclared:
        kept = "they are kept, but status and tables leave them out"
        print(f"note: {folder.runs} holds {undeclared} more that {options.file} does not declare: {kept}")
    return planned


def _sweep_on_slurm(
    options: argparse.Namespace, asked: SweepSpec, runs: Sequence[SweepRun], folder: SweepFolder
) -> int:
    """Hand what is due to SLURM and return; what SLURM has in hand already is left to it."""
    from dg_batchformer.sweep.launchers.slurm import runs_in_task, submit
    from dg_batchformer.training.preflight import check_runs

    cluster = load_cluster(options.slurm, options.cluster)
    with submitting(folder):
        jobs = read_jobs(folder)
        states = queued_states(jobs)
        queued = {run for job in jobs if job.job_id in states for run in job.runs}
        planned = _plan(options, folder, runs, cluster.array, queued)
        check_runs([run.spec for run in planned.due], options.data_dir)
        folder.write(declaration(asked, runs))
        for run_id in planned.states.having(State.FAILED) & {run.spec.id for run in planned.due}:
            folder.run(run_id).error_file.unlink(missing_ok=True)  # tasks leave failed runs alone
        per_task = options.runs_per_task or runs_in_task(planned.seconds, cluster)
        submitted = 0
        for part in submit(folder, planned.due, options.data_dir, cluster, per_task):
            log_jobs(folder, part)
            submitted += len(part)
    print(f"{submitted} tasks of up to {per_task} runs submitted; {len(states)} tasks were there already")
    print(f"follow: python -m dg_batchformer status {folder.path} --watch")
    return OK


def _check_names(file: Path, asked: SweepSpec, runs: Sequence[SweepRun]) -> None:
    """Raise InputError, with file and line, for a row whose algorithm or hparams there are not."""
    from dg_batchformer.hparams_registry import resolve_hparams

    lines = {row.label: row.line for row in asked.algorithms}
    for label, spec in {(run.label, run.spec.dataset): run for run in runs}.values():
        try:
            resolve_hparams(spec)
        except InputError as error:
            raise InputError(f"{file}:{lines[label]}: row {label!r}: {error}") from None


def _launch(folder: SweepFolder, due: Sequence[SweepRun], devices: Sequence[str], options: argparse.Namespace) -> bool:
    """Train what is due on this machine; return false where that was interrupted."""
    from dg_batchformer.sweep.console import SweepConsole
    from dg_batchformer.sweep.launchers.local import LocalLauncher

    console = SweepConsole(due)
    launcher = LocalLauncher(folder, devices, options.data_dir, console, threads=options.threads)
    try:
        with folder.launching():
            return launcher.launch(due)
    finally:
        console.close()


def _say_what_lacks(folder: SweepFolder, runs: Sequence[SweepRun]) -> int:
    """Close a sweep: where its tables are, and which of its runs they lack."""
    print(f"tables: python -m dg_batchformer tables {folder.path}")
    lacking = {run_id: state for run_id, state in run_states(folder, runs).of.items() if state is not State.DONE}
    if not lacking:
        return OK
    others = "; running ones are trained by another launch" if State.RUNNING in lacking.values() else ""
    print(f"not done: {counted(lacking)}{others}; see: python -m dg_batchformer status {folder.path}")
    return INCOMPLETE


def status(options: argparse.Namespace) -> int:
    """Show what has become of a sweep, once or until nothing is left to wait for."""
    folder = SweepFolder(options.folder)
    declared = read_declaration(folder)
    while True:
        states = run_states(folder, declared.runs)
        if options.watch and sys.stdout.isatty():
            print("\033[2J\033[H", end="")  # an empty screen
        print(status_text(folder, declared, states), flush=True)
        if not options.watch or not (states.having(State.RUNNING) or _is_launched(folder)):
            return INCOMPLETE if states.having(State.FAILED, State.DIVERGED) else OK
        time.sleep(options.watch)


def _is_launched(folder: SweepFolder) -> bool:
    """Whether somebody is about to train more of a sweep."""
    return is_launched(folder) or bool(queued_states(read_jobs(folder)))


def cancel(options: argparse.Namespace) -> int:
    """End what trains a sweep, its runs saved: launches on this machine, and its SLURM jobs."""
    folder = SweepFolder(options.folder)
    read_declaration(folder)  # or it is no sweep
    told, elsewhere = end_launches(folder)
    jobs = list(queued_states(read_jobs(folder)))
    cancel_jobs(jobs)
    print(f"asked to end: {told} launches on this machine, {len(jobs)} SLURM tasks; their runs are saved")
    for host in sorted(elsewhere):
        print(f"a launch on {host} goes on; cancel it there")
    return INCOMPLETE if elsewhere else OK


def tables(options: argparse.Namespace) -> int:
    """Print the tables of a sweep, and write them in every format."""
    collection = collect(SweepFolder(options.folder))
    sections = build_sections(collection, list(METHODS) if "all" in options.selection else options.selection)
    print(FORMATS[options.format](sections), end="")
    for file, lines in collection.skipped.items():
        print(f"skipped {lines} unreadable lines of {file}", file=sys.stderr)
    if options.output is not None:
        rendered = {options.output / f"tables.{SUFFIXES[name]}": render(sections) for name, render in FORMATS.items()}
        options.output.mkdir(parents=True, exist_ok=True)
        for file, text in rendered.items():
            write_text(file, text)
            print(f"wrote {file}")
    return OK


def list_(options: argparse.Namespace) -> int:
    """Show what there is."""
    from dg_batchformer.listing import list_kind

    print(list_kind(options.kind, options.name, dataset=options.dataset, protocol=options.protocol))
    return OK


def data_cache(options: argparse.Namespace) -> int:
    """Decode a dataset into the pixel cache."""
    from dg_batchformer.datasets import get_dataset_class
    from dg_batchformer.datasets.folders import ImageFolders
    from dg_batchformer.datasets.pixels import prepare_plane
    from dg_batchformer.training.console import Console

    if options.image_size < 1:
        raise InputError(f"--image_size is {options.image_size}, allowed is a whole number, at least 1")
    dataset = get_dataset_class(options.name)(options.data_dir, [0], {"image_size": options.image_size})
    if not isinstance(dataset, ImageFolders):
        raise InputError(f"{options.name} is built in and in memory: it needs no cache")
    console = Console()
    for note in dataset.notes:
        console.note(note)
    for size in (None, options.image_size):
        plane = prepare_plane(dataset, size, console.caching)
        print(f"{plane}: {(plane / 'pixels').stat().st_size / 2**30:.2f} GiB")
    return OK
