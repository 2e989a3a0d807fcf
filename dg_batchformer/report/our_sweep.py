"""A sweep of ours, read back: every run that it declares, whatever became of it, and the soups of these."""

from dataclasses import replace

from dg_batchformer.declaration import read_declaration
from dg_batchformer.foreign_text import one_line
from dg_batchformer.regular_files import TABLE, read_bytes
from dg_batchformer.report.collection import CollectedRun, Collection, unreadable_lines
from dg_batchformer.report.index import read_folders
from dg_batchformer.report.runs import RecordsFile, parse_records
from dg_batchformer.report.soups import read_soups
from dg_batchformer.spec import RunSpec
from dg_batchformer.store import RunFolder, State, SweepFolder


def read_our_sweep(folder: SweepFolder, unfinished: bool = False) -> Collection:
    """Read a sweep of ours; raise InputError where there is none, or its declaration is damaged.

    Args:
        unfinished: whether runs count that are not trained to their end.

    """
    declared = read_declaration(folder)
    files = read_folders(folder.runs) if folder.runs.exists() else {}
    known = folder.final_states()
    runs = []
    for label, spec in declared.runs:
        run, file = folder.run(spec.id), files.get(spec.id, RecordsFile([]))
        state = known[spec.id][0] if spec.id in known else run.state()
        sources = spec.train_envs if declared.by_source else ()
        runs.append(_collected(label, spec, run, state, file, sources, unfinished))
    torn = unreadable_lines(folder.runs, {spec.id: files[spec.id] for _, spec in declared.runs if spec.id in files})
    left = {run.state for run in runs if not run.state.is_final}
    commands = [declared.command(retry_failed=State.FAILED in left)] if left else []
    soups, skipped = read_soups(folder)
    rows = list(dict.fromkeys([*declared.rows, *(soup.label for soup in soups)]))
    said = f"are not trained to their end{' but count, with what they recorded so far' * unfinished}"
    train = f"{said}; train them: {' '.join(commands)}"
    return Collection(declared.name, rows, [*runs, *soups], commands, [*torn, *skipped], train)


def read_run(spec: RunSpec, folder: RunFolder) -> CollectedRun:
    """Read one run, whatever trained it."""
    content = read_bytes(folder.records_file, TABLE) if folder.records_file.exists() else b""
    return _collected(spec.algorithm, spec, folder, folder.state(), parse_records(content), spec.train_envs)


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
