"""How to reproduce a sweep: the sweep file and the commands."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from dg_batchformer.errors import MALFORMED
from dg_batchformer.results.collection import Collection
from dg_batchformer.results.our_sweep import our_runs, train_command
from dg_batchformer.spec.manifest import read_sweep_manifest
from dg_batchformer.spec.run_folder import read_spec
from dg_batchformer.spec.sweep import SweepSpec
from dg_batchformer.storage.folders import SweepFolder
from dg_batchformer.text.command import command
from dg_batchformer.text.printable import one_line


@dataclass(frozen=True)
class SweepFile:
    """A sweep file, restored from the manifest of a sweep folder."""

    name: str
    text: str


def sweep_files(folders: Sequence[Path]) -> list[SweepFile]:
    """Return the sweep files of those folders that are sweep folders of this package."""
    found = []
    for folder in [SweepFolder(path) for path in folders]:
        if folder.is_sweep:
            try:
                text = _sweep_file(folder.read()["declared"])
            except MALFORMED:
                continue
            found.append(SweepFile(f"sweeps/{read_sweep_manifest(folder).name}.yaml", text))
    return found


def commands(collection: Collection, folders: Sequence[Path], **options: object) -> list[str]:
    """Return the commands that train the runs, print the tables and write this page.

    Args:
        options: options of ``report``; ``tables`` gets all of them but ``output``.

    """
    ours = [SweepFolder(path) for path in folders if SweepFolder(path).is_sweep]
    trains = [train_command(read_spec(run), run.path) for path in folders for run in our_runs(path)]
    reading = {name: value for name, value in options.items() if name != "output"}
    return [
        *dict.fromkeys([*(read_sweep_manifest(folder).command() for folder in ours), *trains, *collection.commands]),
        command("tables", *folders, **reading),
        command("report", *folders, **options),
    ]


def _sweep_file(declared: Mapping[str, Any]) -> str:
    """Return the text of an equivalent sweep file, without keys that equal their default."""
    defaults = {
        item.name: item.default if item.default is not MISSING else {} if item.default_factory is not MISSING else None
        for item in fields(SweepSpec)
    }
    no_keys = ("name", "environments", "question")
    kept = {key: value for key, value in declared.items() if key not in no_keys and value != defaults.get(key)}
    kept = {key: value for key, value in kept.items() if value != []}  # an empty tuple, after JSON
    kept["algorithms"] = [_row(row) for row in declared["algorithms"]]
    question = declared.get("question")
    text = yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)
    return (f"# {one_line(question)}\n" if isinstance(question, str) and question else "") + text


def _row(row: Mapping[str, Any]) -> Any:
    given = {key: row[key] for key in ("hparams", "grid") if row.get(key)}
    if row["label"] == row["algorithm"] and not given:
        return row["algorithm"]
    return {"name": row["algorithm"], "label": row["label"], **given}
