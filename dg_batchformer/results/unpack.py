"""Write the run folders of a packed sweep again, so that it can be continued."""

import math
from collections.abc import Iterator

from dg_batchformer.errors import InputError
from dg_batchformer.results.collection import Ending
from dg_batchformer.results.packed import Contents, read_packed
from dg_batchformer.results.runs import RecordsFile, RunRecords
from dg_batchformer.results.winners import read_winners, write_winners
from dg_batchformer.spec.manifest import read_sweep_manifest
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.storage.digests import mark_done
from dg_batchformer.storage.folders import RunFolder, State, SweepFolder, atomic_write, write_json
from dg_batchformer.storage.parquet import read_note
from dg_batchformer.storage.records import to_line


def unpack(folder: SweepFolder) -> int:
    """Write the folders of the ended runs and the soups in ``records.parquet``, and the sweep manifest last.

    The others are due again. Models, predictions, logs and checkpoints are not packed, so they do not come back.

    Returns:
        The number of ended runs: those that finished, and those that a race stopped.

    Raises:
        InputError: if the sweep is not packed, its records are damaged, or its folder is not writable.

    """
    if not folder.is_packed:
        raise InputError(f"{folder.path} is not packed: packed sweeps have records.parquet and no run folders")
    manifest, winners, note = read_sweep_manifest(folder), read_winners(folder), read_note(folder.packed_file)
    contents = read_packed(folder)
    records_of_soups = {soup.path.name: soup.records for soup in contents.soups}
    finished = {run.spec.id: run.spec for run in manifest.runs if _is_whole(contents, run.spec.id)}
    try:
        for run_id, spec in finished.items():
            _write(folder.run(run_id), spec, contents.files[run_id], contents.states[run_id], contents.endings[run_id])
            folder.log_end(run_id)
        for name, (label, spec_content) in note["soups"].items():
            _write_soup(RunFolder(folder.soups / name), label, RunSpec.from_dict(spec_content), records_of_soups[name])
    except OSError as error:
        raise InputError(f"cannot write to {folder.path}: {error.strerror}") from None
    if winners:
        write_winners(folder, winners)
    folder.write({name: value for name, value in note["sweep"].items() if name != "winners"})
    return len(finished)


def _is_whole(contents: Contents, run_id: str) -> bool:
    file = contents.files.get(run_id)
    return contents.states.get(run_id, State.DUE).has_ended and file is not None and file.intact is not False


def _write_soup(folder: RunFolder, label: str, spec: RunSpec, records: RunRecords) -> None:
    folder.path.mkdir(parents=True, exist_ok=True)
    write_json(folder.soup_file, {"label": label})
    _write(folder, spec, RecordsFile([records]), State.DONE, Ending(0.0))


def _write(folder: RunFolder, spec: RunSpec, file: RecordsFile, state: State, ending: Ending) -> None:
    """Write the folder of an ended run; ``done`` or ``race.json`` is written last."""
    folder.path.mkdir(parents=True, exist_ok=True)
    write_json(folder.spec_file, spec.as_dict())
    with atomic_write(folder.records_file) as target:
        target.writelines(line.encode() for run in file.runs for line in _lines(run, file.is_plain))
    times = ending._asdict() | {"failure": None}
    known = {name: value for name, value in times.items() if value is not None}
    if state is State.OUTRACED:
        write_json(folder.race_file, known)
    else:
        mark_done(folder, {"id": folder.path.name, "outcome": state.value, **known})


def _lines(run: RunRecords, is_plain: bool) -> Iterator[str]:
    """Yield the records as lines; a measurement that is not a number is null in strict JSON."""
    of = run.evaluations
    for step, final, values, recorded in zip(of.steps, of.final, of.values, of.recorded, strict=True):
        measured = {
            key: None if is_plain and math.isnan(value) else value
            for key, value, has in zip(of.keys, values.tolist(), recorded.tolist(), strict=True)
            if has
        }
        yield to_line({**run.constant, **measured, "step": int(step), **({"final": True} if final else {})})
