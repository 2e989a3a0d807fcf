"""Read one of our sweeps: all declared runs with their states, and its soups."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import compress
from pathlib import Path

from dg_batchformer.catalog.datasets import DOMAINBED_ORDER, known_first
from dg_batchformer.errors import InputError
from dg_batchformer.results.cache import read_folders
from dg_batchformer.results.collection import CollectedRun, Collection, Ending, unreadable_lines
from dg_batchformer.results.packed import Contents, read_packed, write_packed
from dg_batchformer.results.runs import RecordsFile, RunRecords, parse_records
from dg_batchformer.results.soups import read_soups
from dg_batchformer.results.winners import read_winners
from dg_batchformer.spec.launch import options_of_run
from dg_batchformer.spec.manifest import SweepManifest, SweepRun, read_sweep_manifest
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.spec.run_folder import read_spec
from dg_batchformer.storage.digests import damaged
from dg_batchformer.storage.folders import RunFolder, State, SweepFolder
from dg_batchformer.storage.safe_read import TABLE, read_bytes
from dg_batchformer.text.command import command
from dg_batchformer.text.counts import how_many, listed
from dg_batchformer.text.printable import one_line


def read_our_sweep(folder: SweepFolder, unfinished: bool = False, predictions: bool = False) -> Collection:
    """Read one of our sweeps; raise InputError if its manifest is missing or damaged.

    Args:
        folder: of the sweep.
        unfinished: include unfinished runs.
        predictions: prediction files will be read, so damage to them counts.

    """
    manifest = read_sweep_manifest(folder)
    found = read_contents(folder, manifest, predictions)
    files, runs = found.files, []
    chosen = {(winner.row, winner.run): winner for winner in read_winners(folder)}
    for asked in manifest.runs:
        spec = asked.spec
        file, state = files.get(spec.id, RecordsFile([])), found.states.get(spec.id, State.DUE)
        train_envs = spec.train_envs if manifest.by_train_envs else ()
        run = _collected(asked.label, spec, folder.run(spec.id), state, file, train_envs, unfinished)
        winner = chosen.get((asked.label, asked.winner))
        known = found.endings.get(spec.id)
        race = None if asked.bracket is None else asked.bracket.race
        run = replace(run, known_ending=known, point=asked.point, searches=asked.searches, winner=winner, race=race)
        runs.append(run)
    declared = [run.spec.id for run in manifest.runs]
    torn = unreadable_lines(folder.runs, {run_id: files[run_id] for run_id in declared if run_id in files})
    left = {run.state for run in runs if not run.state.has_ended}
    retry = [state for state in (State.FAILED, State.DAMAGED) if state in left]
    commands = [manifest.command(retry=retry)] if left else []
    rows = list(dict.fromkeys([*manifest.rows, *(soup.label for soup in found.soups)]))
    train = f"{_said_of_unfinished(unfinished)}; train them: {' '.join(commands)}"
    older = sum(run.state.is_final and files.get(run.path.name, RecordsFile([])).intact is None for run in runs)
    kept = "no digests of their files, as older versions wrote none, so damage would not be detected"
    unknown = [f"{older} of {how_many(len(runs), 'run')} have {kept}"] if older else []
    notes = [*torn, *_about_damage(runs), *unknown, *found.skipped]
    return Collection(manifest.name, rows, [*runs, *found.soups], commands, notes, train)


def read_contents(folder: SweepFolder, manifest: SweepManifest, predictions: bool = False) -> Contents:
    """Read the folder of a sweep: its packed records, or its run folders.

    Args:
        folder: of the sweep.
        manifest: of the sweep.
        predictions: damage to prediction files counts.

    """
    if folder.is_packed:
        return read_packed(folder, by_train_envs=manifest.by_train_envs)
    files, known = read_files(folder), folder.final_states()
    logged = {run_id: final.state for run_id, final in known.items()}
    states = {
        run_id: _state(folder, run, logged.get(run_id), files.get(run_id), predictions)
        for run_id, run in {run.spec.id: run for run in manifest.runs}.items()
    }
    endings = {run_id: Ending(final.seconds, "", final.seconds_alone) for run_id, final in known.items()}
    soups, skipped = read_soups(folder, by_train_envs=manifest.by_train_envs)
    return Contents(files, states, soups, endings, skipped)


def read_files(folder: SweepFolder) -> Mapping[str, RecordsFile]:
    """Return the records of a sweep by run id, including runs that its manifest does not list."""
    if folder.is_packed:
        return read_packed(folder).files
    return read_folders(folder.runs) if folder.runs.exists() else {}


def pack(folder: SweepFolder) -> None:
    """Write the records, states and manifest of a sweep to one file; raise InputError if it cannot be written."""
    if folder.is_packed:
        raise InputError(f"{folder.path} is packed already: it has {folder.packed_file.name} and no run folders")
    manifest = read_sweep_manifest(folder)
    found = read_contents(folder, manifest)
    endings = {run_id: Ending.of(folder.run(run_id)) for run_id in found.states}
    write_packed(folder, manifest, found._replace(endings=endings))


def _said_of_unfinished(counted: bool) -> str:
    """Return the predicate of a sentence on unfinished runs."""
    return "are unfinished" + (", but included with their records so far" if counted else "")


def _state(
    folder: SweepFolder, run: SweepRun, known: State | None, file: RecordsFile | None, predictions: bool
) -> State:
    """Return the state of a run; folders of runs with a logged state and records are not read."""
    files = folder.run(run.spec.id)
    if known is not None and file is None and not files.path.exists():
        return State.GONE
    state = run.state(files) if known is None or file is None else known
    is_damaged = file is None or file.intact is False or (predictions and damaged(files, [files.predictions_file.name]))
    return State.DAMAGED if state.is_final and is_damaged else state


def _about_damage(runs: Sequence[CollectedRun]) -> list[str]:
    """Return a note on damaged runs."""
    found = [str(_damaged_file(RunFolder(run.path))) for run in runs if run.state is State.DAMAGED]
    return [f"changed or missing since the run finished, which is excluded: {listed(found)}"] if found else []


def _damaged_file(run: RunFolder) -> Path:
    names = damaged(run, [run.records_file.name, run.predictions_file.name])
    return run.path / names[0] if names else run.records_file


def our_runs(folder: Path) -> list[RunFolder]:
    """Return the runs that ``train`` wrote to a folder: the folder itself, or its subfolders."""
    if RunFolder(folder).spec_file.is_file():
        return [RunFolder(folder)]
    within = [RunFolder(path) for path in sorted(folder.iterdir())] if folder.is_dir() else []
    first = next((run for run in within if run.records_file.exists()), None)  # of thousands
    return [run for run in within if run.spec_file.is_file()] if first and first.spec_file.is_file() else []


def read_our_runs(folder: Path, runs: Sequence[RunFolder], unfinished: bool = False) -> Collection:
    """Read runs that ``train`` wrote, one row per algorithm; raise InputError if a spec is damaged."""
    specs = [read_spec(run) for run in runs]
    read = [
        read_run(spec, run, spec.train_envs if spec.leaves_some_out else (), unfinished)
        for spec, run in zip(specs, runs, strict=True)
    ]
    left = [not run.state.is_final for run in read]
    commands = [
        train_command(spec, run.path) for spec, run in zip(compress(specs, left), compress(read, left), strict=True)
    ]
    rows = known_first((run.label for run in read), DOMAINBED_ORDER)
    notes = _about_damage(read)
    train = f"{_said_of_unfinished(unfinished)}; train them: {'; '.join(commands)}"
    return Collection(folder.absolute().name, rows, read, commands, notes, train)


def train_command(spec: RunSpec, folder: Path) -> str:
    """Return the command that trains or resumes a run in its folder."""
    data_dir = "DATA" if spec.facts.folder else None  # of earlier versions, which did not store it
    options = {"data_dir": data_dir, **options_of_run(RunFolder(folder))}
    return command("train", **spec.options(), **options, output_dir=folder)


def read_run(
    spec: RunSpec, folder: RunFolder, train_envs: tuple[int, ...] | None = None, unfinished: bool = False
) -> CollectedRun:
    """Read one run, of a sweep or of ``train``.

    Args:
        spec: of the run.
        folder: of the run.
        train_envs: its training environments, if tables are grouped by them; default: those of the spec.
        unfinished: include its evaluations even if it is unfinished.

    """
    content = read_bytes(folder.records_file, TABLE) if folder.records_file.exists() else b""
    state = State.DAMAGED if damaged(folder, [folder.records_file.name]) else folder.state()
    return _collected(
        spec.algorithm,
        spec,
        folder,
        state,
        parse_records(content),
        spec.train_envs if train_envs is None else train_envs,
        unfinished,
    )


def _collected(
    label: str,
    spec: RunSpec,
    folder: RunFolder,
    state: State,
    file: RecordsFile,
    train_envs: tuple[int, ...],
    unfinished: bool = False,
) -> CollectedRun:
    records = file.runs[-1] if (state.has_ended or unfinished) and file.runs else RunRecords()
    if state is State.OUTRACED:  # its hparams were tried, but nothing selects or averages what it reached
        records = RunRecords(records.constant)
    return CollectedRun(
        label,
        one_line(spec.dataset),
        spec.algorithm,
        spec.test_envs,
        spec.trial_seed,
        spec.hparams_seed,
        state,
        records,
        path=folder.path,
        environments=tuple(map(one_line, spec.environments)),
        train_envs=train_envs,
        imbalance="" if spec.imbalance is None else str(spec.imbalance),
    )
