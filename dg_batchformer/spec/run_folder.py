"""Name the folder of a run, read the spec in it, and refuse to overwrite another run."""

import json
from collections.abc import Mapping
from typing import Any

from dg_batchformer.errors import MALFORMED, InputError
from dg_batchformer.spec.run import RunSpec
from dg_batchformer.storage.folders import RunFolder, SweepFolder, folder_of_run, read_object
from dg_batchformer.storage.safe_read import TABLE, TEXT, Unreadable, read_text


def default_folder(spec: RunSpec, algorithm: str) -> RunFolder:
    """Return the folder of a run for which none is given, named after the run, with its algorithm as it was typed."""
    tests = "+".join(spec.facts.names[env] for env in spec.test_envs)
    return folder_of_run(spec.id, spec.dataset, algorithm, tests)


def read_spec(folder: RunFolder) -> RunSpec:
    """Read the spec of a run; raise InputError if the folder is not a run folder."""
    if SweepFolder(folder.path).is_sweep:
        raise InputError(
            f"{folder.path} is a sweep folder; give the folder of one of its runs, {folder.path}/runs/ID, from a sweep "
            "started with --keep final"
        )
    try:
        return RunSpec.from_dict(json.loads(read_text(folder.spec_file, TEXT, errors="replace")))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{folder.path} is not a run folder: it has no {folder.spec_file.name}; give the --output_dir of a train "
            "command"
        ) from None
    except Unreadable:
        raise
    except MALFORMED as error:
        raise InputError(f"{folder.spec_file} cannot be read: {error}") from None


def refuse_other_run(folder: RunFolder, spec: RunSpec) -> None:
    """Raise InputError if training would overwrite another run, or files of another program."""
    ours = (folder.done_file, folder.records_file, folder.checkpoint_file, folder.race_file, *folder.kept_files)
    files = [file for file in ours if file.is_file()]
    if not files and not folder.spec_file.exists():
        return
    way_out = "give another --output_dir, or move it away"
    if _can_be_written_again(folder, spec):
        return
    if not folder.spec_file.exists():
        names = ", ".join(file.name for file in files)
        raise InputError(f"{folder.path} has {names} but no spec.json, so dg_batchformer did not write it; {way_out}")
    try:
        held = RunSpec.from_dict(json.loads(read_text(folder.spec_file, TEXT, errors="replace")))
    except MALFORMED:
        raise InputError(f"{folder.spec_file} cannot be read; {way_out}") from None
    if files and held.id != spec.id:
        asked, there = spec.as_dict(), held.as_dict()
        fields = [name for name in RunSpec.__dataclass_fields__ if asked.get(name) != there.get(name)]
        differing = [f"{name} {_said(there, name)}, not {_said(asked, name)}" for name in fields]
        raise InputError(f"{folder.path} holds another run ({', '.join(differing)}); {way_out}")


def _can_be_written_again(folder: RunFolder, spec: RunSpec) -> bool:
    """Return whether the spec of an unfinished run is unreadable, but the run is declared by the sweep around it."""
    if folder.done_file.exists() or folder.path.name != spec.id or read_object(folder.spec_file):
        return False
    declared = read_object(SweepFolder(folder.path.absolute().parents[1]).sweep_file, TABLE).get("runs")
    return isinstance(declared, list) and any(isinstance(run, dict) and run.get("id") == spec.id for run in declared)


def _said(fields: Mapping[str, Any], name: str) -> object:
    return fields.get(name, "all others" if name == "train_envs" else "unsaid")
