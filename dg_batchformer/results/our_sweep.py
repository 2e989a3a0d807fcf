"""A sweep of ours, read back: every run that it declares, whatever became of it, and the soups of these."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from dg_batchformer.results.cache import read_folders
from dg_batchformer.results.collection import CollectedRun, Collection, how_many, listed, unreadable_lines
from dg_batchformer.results.runs import RecordsFile, parse_records
from dg_batchformer.results.soups import read_soups
from dg_batchformer.spec.manifest import read_declaration
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.storage.digests import damaged
from dg_batchformer.storage.folders import RunFolder, State, SweepFolder
from dg_batchformer.storage.safe_read import TABLE, read_bytes
from dg_batchformer.text.printable import one_line


def read_our_sweep(folder: SweepFolder, unfinished: bool = False, predictions: bool = False) -> Collection:
    """Read a sweep of ours; raise InputError where there is none, or its declaration is damaged.

    Args:
        unfinished: whether runs count that are not trained to their end.
        predictions: whether files of predictions are to be read, and damage to them counts.

    """
    declared = read_declaration(folder)
    files = read_folders(folder.runs) if folder.runs.exists() else {}
    known = folder.final_states()
    runs = []
    for label, spec in declared.runs:
        run, file = folder.run(spec.id), files.get(spec.id, RecordsFile([]))
        state = _state(run, known.get(spec.id, (None, None))[0], files.get(spec.id), predictions)
        sources = spec.train_envs if declared.by_source else ()
        runs.append(_collected(label, spec, run, state, file, sources, unfinished))
    torn = unreadable_lines(folder.runs, {spec.id: files[spec.id] for _, spec in declared.runs if spec.id in files})
    left = {run.state for run in runs if not run.state.is_final}
    retry = [state for state in (State.FAILED, State.DAMAGED) if state in left]
    commands = [declared.command(retry=retry)] if left else []
    soups, skipped = read_soups(folder, by_source=declared.by_source)
    rows = list(dict.fromkeys([*declared.rows, *(soup.label for soup in soups)]))
    said = f"are not trained to their end{' but count, with what they recorded so far' * unfinished}"
    train = f"{said}; train them: {' '.join(commands)}"
    notes = [*torn, *_about_damage(runs, files), *skipped]
    return Collection(declared.name, rows, [*runs, *soups], commands, notes, train)


def _state(run: RunFolder, known: State | None, file: RecordsFile | None, predictions: bool) -> State:
    """Return what has become of a run, by its folder; the log spares looking into folders that have records."""
    if known is not None and file is None and not run.path.exists():
        return State.GONE
    state = run.state() if known is None or file is None else known
    is_damaged = file is None or file.intact is False or (predictions and damaged(run, [run.predictions_file.name]))
    return State.DAMAGED if state.is_final and is_damaged else state


def _about_damage(runs: Sequence[CollectedRun], files: Mapping[str, RecordsFile]) -> list[str]:
    """Say which runs are damaged, and for how many nobody could know."""
    found = [str(_damaged_file(RunFolder(run.path))) for run in runs if run.state is State.DAMAGED]
    said = [f"damaged or gone after the end of the run, which does not count: {listed(found)}"] if found else []
    older = sum(run.state.is_final and files[run.path.name].intact is None for run in runs)
    kept = "no digests of their files, as older versions did not, so damage to these would go unnoticed"
    return said + [f"{older} of {how_many(len(runs), 'run')} have {kept}"] * (older > 0)


def _damaged_file(run: RunFolder) -> Path:
    names = damaged(run, [run.records_file.name, run.predictions_file.name])
    return run.path / names[0] if names else run.records_file


def read_run(spec: RunSpec, folder: RunFolder) -> CollectedRun:
    """Read one run, whatever trained it."""
    content = read_bytes(folder.records_file, TABLE) if folder.records_file.exists() else b""
    state = State.DAMAGED if damaged(folder, [folder.records_file.name]) else folder.state()
    return _collected(spec.algorithm, spec, folder, state, parse_records(content), spec.train_envs)


def _collected(
    label: str,
    spec: RunSpec,
    folder: RunFolder,
    state: State,
    file: RecordsFile,
    sources: tuple[int, ...],
    unfinished: bool = False,
) -> CollectedRun:
    run = CollectedRun(
        label,
        one_line(spec.dataset),
        spec.algorithm,
        spec.test_envs,
        spec.trial_seed,
        spec.hparams_seed,
        state,
        path=folder.path,
        environments=tuple(map(one_line, spec.environments)),
        sources=sources,
    )
    if not ((state.is_final or unfinished) and file.runs):
        return run
    return replace(run, evaluations=file.runs[-1].evaluations, constant=file.runs[-1].constant)
