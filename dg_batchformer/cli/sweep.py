"""``sweep``: train the missing runs of a sweep file."""

import argparse
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from dg_batchformer.callbacks.load import find_callbacks
from dg_batchformer.cli.common import INCOMPLETE, INTERRUPTED, OK, Verbs, add_log, import_plugins, positive, run_options
from dg_batchformer.errors import InputError
from dg_batchformer.results.search import declare_winners, with_hparams_from
from dg_batchformer.results.unpack import unpack
from dg_batchformer.results.winners import cells, read_winners, repeats, write_winners
from dg_batchformer.spec.launch import DEFAULT_RESULTS, REMEMBERED, Launch
from dg_batchformer.spec.manifest import SweepRun, awaits_winners, manifest_content
from dg_batchformer.spec.names import is_of_session
from dg_batchformer.spec.sweep import SweepSpec
from dg_batchformer.spec.sweep_file import declared_plugins, load_sweep
from dg_batchformer.storage.folders import KEEP, State, SweepFolder, refuse_misplaced
from dg_batchformer.sweep.cluster import SETTINGS, load_cluster
from dg_batchformer.sweep.expand import expand
from dg_batchformer.sweep.jobs import log_jobs, queued_states, read_jobs, submitting
from dg_batchformer.sweep.launchers.base import OURS, Launcher, find_launcher
from dg_batchformer.sweep.plan import Plan, States, counted, mean_seconds, plan, run_states
from dg_batchformer.text.command import command
from dg_batchformer.text.counts import duration, how_many, of_trials

RETRIED = (State.FAILED.value, State.DAMAGED.value)
_FIRST_COMMANDS = 3


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its options."""
    text = (
        "Train the runs of a sweep file that are not done. Repeat the command to resume. If the file has a search for "
        "hyper-parameters, choose the winners once it has finished, and train them. Results of NAME.yaml are written "
        "to RESULTS_DIR/NAME/; sweeps/README.md explains sweep files."
    )
    verb = verbs.add_parser("sweep", help="train the missing runs of a sweep file", description=text)
    verb.set_defaults(run=run, works=True, default=verb.get_default)
    add = verb.add_argument
    add("file", type=Path, metavar="FILE", help="a sweep file, such as sweeps/quickstart.yaml")
    add("--launcher", metavar="NAME", default="local",
        help="local: train on this machine; slurm: submit job arrays and return; dry_run: print the missing runs, "
        "their cost and the first commands; or a plug-in's, see list launchers (default: %(default)s)")  # fmt: skip
    add("--devices", metavar="NAMES", default="auto",
        help="one worker per name, such as cpu,cpu or cuda:0,cuda:1 or UUIDs of nvidia-smi -L; auto: one per GPU or "
        "MIG slice, or up to 4 on the CPU (default: %(default)s)")  # fmt: skip
    add("--data_dir", type=Path, metavar="DIR", help="folder of all datasets, such as DIR/PACS/sketch/dog/")
    add("--results_dir", type=Path, metavar="DIR", default=DEFAULT_RESULTS,
        help="folder of all results (default: %(default)s)")  # fmt: skip
    add("--keep", choices=KEEP, default="none",
        help="the weights that every run keeps, see train --help; explain, predict and soup need them (default: "
        "%(default)s)")  # fmt: skip
    add("--predictions", action="store_true",
        help="every run saves the predictions of its model, for tables --metric; see train --help")  # fmt: skip
    add_log(verb)
    add("--retry", nargs="+", action="extend", choices=RETRIED, default=[],
        help="also retrain runs that failed, or whose files are damaged; looking for damage reads all files of trained "
        "runs")  # fmt: skip
    add("--threads", type=positive, metavar="N",
        help="CPU threads of each local worker; the last digits of sums depend on their number (default: the cores are "
        "divided among workers)")  # fmt: skip
    add("--verbose", action="store_true", help="print the commands of all runs in a dry run, not only the first few")
    add = verb.add_argument_group("on SLURM").add_argument
    add("--slurm", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="resources of every task, such as partition=gpu gpus=1 cpus=8 mem=32G time=4:00:00; keys: "
        f"{', '.join(SETTINGS)}",
    )  # fmt: skip
    add("--cluster", type=Path, metavar="FILE",
        help="YAML file with such settings under the key slurm (default: ~/.config/dg_batchformer.yaml, if it "
        "exists)")  # fmt: skip
    add("--runs_per_task", type=positive, metavar="N",
        help="runs per task, trained one after another on each of its devices, where runs that are trained together "
        "count as one (default: as many as fit its time limit, judged by finished runs; 1 until every row has a "
        "finished run)")  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Start the missing runs of a sweep file, or print what would be started."""
    asked = read(options.file, options.data_dir)
    return start(options, asked, expand(asked))


def read(file: Path, data_dir: Path | None) -> SweepSpec:
    """Read a sweep file; first import its plug-ins, which may add the wrappers and datasets that it names."""
    plugins = declared_plugins(file)
    try:
        import_plugins(plugins)
    except InputError as error:
        raise InputError(f"{file}: plugins: {error}") from None
    return load_sweep(file, data_dir)


def start(options: argparse.Namespace, asked: SweepSpec, runs: Sequence[SweepRun]) -> int:
    """Start the missing runs of a sweep with the options of the command."""
    _refuse_ignored(options)
    _check_names(options.file, asked, runs)
    if options.launcher not in OURS:
        find_launcher(options.launcher)
    find_callbacks(options.log, asked.plugins)
    folder = SweepFolder(options.results_dir / asked.name)
    refuse_misplaced(folder)
    if folder.is_packed and options.launcher != "dry_run":
        print(f"note: {folder.packed_file} has {how_many(unpack(folder), 'finished run')}, which are not trained again")
    if asked.hparams_from is not None:
        runs = _with_hparams_from(options, asked, folder, runs)
    if asked.search is not None:
        runs = [*runs, *repeats(runs, read_winners(folder), asked.search.repeat, asked.search.selection)]
    if options.launcher == "slurm":
        return _sweep_on_slurm(options, asked, runs, folder)
    from dg_batchformer.training.preflight import parse_devices

    devices = parse_devices(options.devices)
    if options.launcher == "dry_run":
        with _with_run_folders(folder) as found:
            planned = _plan(options, found, runs, asked.share, len(devices))
        _print_commands(options, folder, planned.due, devices)
        _say_what_follows(asked, runs, planned.states)
        return OK
    is_whole = _train(options, asked, runs, folder, devices)
    if is_whole and _following(asked, runs) and (further := _declare_winners(folder)):
        runs = [*runs, *further]
        is_whole = _train(options, asked, runs, folder, devices)
    if not is_whole:
        print("interrupted: all runs are saved; rerun the command to resume")
        return INTERRUPTED
    if _following(asked, runs):
        print("the search is not finished, so its winners are not chosen; rerun the command to continue")
    return _say_what_lacks(folder, runs)


def _refuse_ignored(options: argparse.Namespace) -> None:
    """Raise InputError for options that the launcher would ignore."""
    of_others = ("devices", "threads") if options.launcher == "slurm" else ("slurm", "cluster", "runs_per_task")
    given = [name for name in of_others if getattr(options, name) != options.default(name)]
    if not given:
        return
    ways_out = {"slurm": "give --slurm gpus=N or cpus=N instead, or ", "dry_run": ""}
    raise InputError(
        f"{' and '.join(f'--{name}' for name in given)} would be ignored by --launcher {options.launcher}; "
        f"{ways_out.get(options.launcher, 'add --launcher slurm, or ')}drop {'it' if len(given) == 1 else 'them'}"
    )


@contextmanager
def _with_run_folders(folder: SweepFolder) -> Iterator[SweepFolder]:
    """Give a sweep with run folders, without changing it: of a packed one, an unpacked copy."""
    if not folder.is_packed:
        yield folder
        return
    with TemporaryDirectory() as place:
        copied = SweepFolder(Path(place) / folder.path.name)
        copied.path.mkdir()
        shutil.copyfile(folder.packed_file, copied.packed_file)
        unpack(copied)
        yield copied


def _train(
    options: argparse.Namespace,
    asked: SweepSpec,
    runs: Sequence[SweepRun],
    folder: SweepFolder,
    devices: Sequence[str],
) -> bool:
    """Train the missing runs on this machine; return false if interrupted."""
    from dg_batchformer.training.preflight import check_runs

    planned = _plan(options, folder, runs, asked.share, len(devices))
    _say_what_follows(asked, runs, planned.states)
    notes = check_runs([run.spec for run in planned.due], options.data_dir)
    _say_notes(notes)
    _declare(folder, asked, runs, options)
    _restart(folder, planned)
    return _launch(folder, planned.due, asked.share, devices, options, notes)


def _with_hparams_from(
    options: argparse.Namespace, asked: SweepSpec, folder: SweepFolder, runs: Sequence[SweepRun]
) -> Sequence[SweepRun]:
    """Return the runs with the hparams that another sweep chose, and write its choice down."""
    found, winners = with_hparams_from(Path(str(asked.hparams_from)), folder, runs)
    shared = sorted({trial for winner in winners for trial in winner.trials} & set(asked.trial_seeds))
    if shared:
        said = of_trials(shared)
        print(f"note: {asked.hparams_from} chose hparams on {said}, which this sweep trains too; give other trials")
    if options.launcher != "dry_run":
        write_winners(folder, winners)
    return found


def _following(asked: SweepSpec, runs: Sequence[SweepRun]) -> int:
    """Return how many runs follow a search whose winners are still to be chosen; 0 if none do."""
    if asked.search is None or not awaits_winners(asked.search, runs):
        return 0
    return len(cells(runs)) * len(asked.search.repeat)


def _say_what_follows(asked: SweepSpec, runs: Sequence[SweepRun], states: States) -> None:
    """Print how many runs follow a search, and their expected device time if every row has a finished run."""
    if asked.search is None or not (number := _following(asked, runs)):
        return
    known = mean_seconds(runs, states, alone=True)
    each = [known.get((of_cell[0].label, of_cell[0].spec.dataset)) for of_cell in cells(runs).values()]
    seconds = [took for took in each if took is not None]
    total = len(asked.search.repeat) * sum(seconds)
    price = f", about {duration(total)} of device time" if len(seconds) == len(each) else ""
    print(
        f"after the search: {how_many(number, 'run')} of its winners, on {of_trials(asked.search.repeat)}{price}",
        flush=True,
    )


def _declare_winners(folder: SweepFolder) -> Sequence[SweepRun]:
    """Choose the winners of a finished search, and print where they are; return their runs, [] if it is unfinished."""
    further = declare_winners(folder)
    if further:
        winners = read_winners(folder)
        print(f"chose {how_many(len(winners), 'winner')} by {winners[0].selection} selection: {folder.winners_file}")
        for winner in winners:
            for name, edge in winner.edges.items():
                print(f"note: {winner.row} on {winner.place}: {name} is the {edge} value tried; try a wider range")
    return further


def _declare(folder: SweepFolder, asked: SweepSpec, runs: Sequence[SweepRun], options: argparse.Namespace) -> None:
    """Write the manifest of a sweep, with the options that started it."""
    given = {name: getattr(options, name) for name in REMEMBERED}
    changed = {name: value for name, value in given.items() if value != options.default(name)}
    folder.write(manifest_content(asked, runs, Launch(options.file, changed).kept(folder.path)))


def _plan(
    options: argparse.Namespace,
    folder: SweepFolder,
    runs: Sequence[SweepRun],
    share: bool,
    workers: int,
    queued: Collection[str] = (),
) -> Plan:
    """Plan a sweep and print the plan."""
    planned = plan(folder, runs, retry=[State(name) for name in options.retry], queued=queued, share=share)
    print(f"{folder.path.name}: {planned.text(workers)}", flush=True)
    if options.launcher != "dry_run":
        if planned.due:
            _say_what_is_not_kept(options)
        _say_what_finished_without(options, folder, planned.states)
    if undeclared := planned.states.undeclared:
        found = how_many(undeclared, "run")
        place = options.results_dir / folder.path.name  # in a dry run, the folder may be a temporary copy
        print(f"note: {place} has {found} that {options.file} does not declare; status and tables leave them out")
    return planned


def _say_what_is_not_kept(options: argparse.Namespace) -> None:
    """Print which later commands need files that these runs will not keep."""
    if options.keep == "none":
        print("note: runs keep no model; predict, explain and soup need one, so add --keep final")
    if not options.predictions:
        print("note: runs keep no predictions; some metrics of tables --metric need them, so add --predictions")


def _say_what_finished_without(options: argparse.Namespace, folder: SweepFolder, states: States) -> None:
    """Print how many runs finished without files that are asked for now; only training writes them."""
    done = [folder.run(run_id) for run_id in states.having(State.DONE)]
    no_model = [run for run in done if options.keep != "none" and not run.model_file.exists()]
    no_predictions = [run for run in done if options.predictions and not run.predictions_file.exists()]
    for option, runs in (("--keep", no_model), ("--predictions", no_predictions)):
        if runs:
            print(
                f"note: {how_many(len(runs), 'run')} finished without {option}; to train them again, delete their "
                f"folders in {folder.runs}, or give another --results_dir"
            )


def _print_commands(
    options: argparse.Namespace, folder: SweepFolder, due: Sequence[SweepRun], devices: Sequence[str]
) -> None:
    """Print the commands that would train the missing runs: the first few, or with ``--verbose`` all."""
    from dg_batchformer.sweep.launchers.dry_run import commands
    from dg_batchformer.sweep.launchers.local import share_of_cores

    threads = options.threads or (share_of_cores(devices) if set(devices) == {"cpu"} else None)
    shown = due if options.verbose else due[:_FIRST_COMMANDS]
    print("note: a dry run starts nothing, and does not check for data and weights")
    if any(run.bracket is not None for run in due):
        print("note: only sweep lets runs race; these commands train every run to its end")
    for line in commands(folder, shown, run_options(options), threads):
        print(line)
    if len(shown) < len(due):
        print(f"... and {len(due) - len(shown)} more commands; --verbose prints all")


def _sweep_on_slurm(
    options: argparse.Namespace, asked: SweepSpec, runs: Sequence[SweepRun], folder: SweepFolder
) -> int:
    """Submit the missing runs to SLURM and return; runs of jobs that are already queued are not submitted again."""
    from dg_batchformer.sweep.launchers.slurm import SlurmLauncher, runs_in_task
    from dg_batchformer.training.preflight import check_runs

    _refuse_session(runs)

    cluster = load_cluster(options.slurm, options.cluster)
    with submitting(folder, waiting=cache(lambda: print(f"waiting for another process that submits {folder.path}"))):
        jobs = read_jobs(folder)
        states = queued_states(jobs)
        queued = {run for job in jobs if job.job_id in states for run in job.runs}
        searching = [job for job in jobs if job.job_id in states and not job.is_follow_up]
        follows_up = any(job.job_id in states and job.is_follow_up for job in jobs)
        if _following(asked, runs) and folder.sweep_file.exists():
            _declare(folder, asked, runs, options)
            runs = [*runs, *_declare_winners(folder)]
        if follows_up:
            queued |= {run.spec.id for run in runs if not run.searches}
        planned = _plan(options, folder, runs, asked.share, cluster.array, queued)
        _say_notes(check_runs([run.spec for run in planned.due], options.data_dir))
        _declare(folder, asked, runs, options)
        _restart(folder, planned)
        for run_id in planned.states.having(State.FAILED) & {run.spec.id for run in planned.due}:
            folder.run(run_id).error_file.unlink(missing_ok=True)  # tasks skip failed runs
        per_task = options.runs_per_task or runs_in_task(planned.seconds_of_trainings, cluster)
        launcher = SlurmLauncher(folder, run_options(options), cluster, per_task, share=asked.share)
        submitted = 0
        for part in launcher.submit(planned.due):
            log_jobs(folder, part)
            submitted += len(part)
            searching += part
        if (number := _following(asked, runs)) and searching and (submitted or not follows_up):
            _say_what_follows(asked, runs, planned.states)
            part = launcher.submit_follow_up(declare_winners, number, after=searching)
            log_jobs(folder, part)
            submitted += len(part)
    tasks, size = how_many(submitted, "task"), how_many(per_task, "run")
    print(f"submitted {tasks} of up to {size}; already queued: {how_many(len(states), 'task')}")
    print(f"follow: {command('status', folder.path, watch=True)}")
    return OK


def _refuse_session(runs: Sequence[SweepRun]) -> None:
    """Raise InputError for what was defined in this session, which other processes cannot import."""
    for run in runs:
        if of_session := [plugin.split(":")[1] for plugin in run.spec.plugins if is_of_session(plugin)]:
            raise InputError(
                f"row {run.label!r} uses {' and '.join(of_session)} of this notebook or script, which other "
                "processes cannot import; move it to a module, such as my_module.py, and write plugins: [my_module]"
            )


def _is_of_session(run: SweepRun) -> bool:
    """Return whether a run uses something that was defined in this session, so that only this process has it."""
    return any(is_of_session(plugin) for plugin in run.spec.plugins)


def _restart(folder: SweepFolder, planned: Plan) -> None:
    """Reset trained runs whose folder was deleted or whose files are damaged, so that they start again."""
    for run_id in planned.states.having(State.GONE, State.DAMAGED) & {run.spec.id for run in planned.due}:
        folder.restart(run_id)


def _say_notes(notes: Sequence[str]) -> None:
    for sentence in notes:
        print(f"note: {sentence}", flush=True)


def _check_names(file: Path, asked: SweepSpec, runs: Sequence[SweepRun]) -> None:
    """Raise InputError, with file and line, for a row with an unknown algorithm or wrong hparams."""
    from dg_batchformer.hparams_registry import resolve_hparams

    lines = {row.label: row.line for row in asked.algorithms}
    for run in {(run.label, run.spec.dataset, *run.point.items()): run for run in runs}.values():
        try:
            resolve_hparams(run.spec)
        except InputError as error:
            raise InputError(f"{file}:{lines[run.label]}: row {run.label!r}: {error}") from None


def _launch(
    folder: SweepFolder,
    due: Sequence[SweepRun],
    share: bool,
    devices: Sequence[str],
    options: argparse.Namespace,
    said: Sequence[str],
) -> bool:
    """Train the missing runs on this machine; return false if interrupted.

    Args:
        said: notes that are already printed, so that runs do not repeat them.

    """
    from dg_batchformer.sweep.console import SweepConsole

    console = SweepConsole(due, said)
    launcher = _launcher(options.launcher, due)(
        folder, devices, run_options(options), console, threads=options.threads, share=share
    )
    try:
        with folder.launching():
            return launcher.launch(due)
    finally:
        console.close()


def _launcher(name: str, due: Sequence[SweepRun]) -> type[Launcher]:
    """Return the launcher of a name; for ``local`` that of this process if runs use something of this session."""
    if name != "local":
        _refuse_session(due)
        return find_launcher(name)
    from dg_batchformer.sweep.launchers.local import LocalLauncher
    from dg_batchformer.training.in_process import InProcessLauncher

    return InProcessLauncher if any(map(_is_of_session, due)) else LocalLauncher


def _say_what_lacks(folder: SweepFolder, runs: Sequence[SweepRun]) -> int:
    """Print the command for the tables, and how many runs are not done; return the exit status."""
    print(f"tables: {command('tables', folder.path)}")
    states = run_states(folder, runs).of
    if stopped := sum(state is State.OUTRACED for state in states.values()):
        print(f"the race stopped {how_many(stopped, 'run')}; without the key race, the same command trains them too")
    lacking = {run_id: state for run_id, state in states.items() if state not in (State.DONE, State.OUTRACED)}
    if not lacking:
        return OK
    others = "; another launch trains the running ones" if State.RUNNING in lacking.values() else ""
    print(f"not done: {counted(lacking)}{others}; see: {command('status', folder.path)}")
    return INCOMPLETE
