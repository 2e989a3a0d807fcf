"""The command that started a sweep or a run, stored in its folder so that status, tables and report can print it."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from dg_batchformer.storage.folders import RunFolder, SweepFolder, read_object
from dg_batchformer.storage.safe_read import TABLE

_PATHS = ("data_dir", "cluster")
DEFAULT_RESULTS = Path("results")
REMEMBERED = (*_PATHS, "keep", "predictions", "log", "launcher", "slurm", "runs_per_task", "devices", "threads")
"""The options of ``sweep`` that are repeated in the command that continues it."""
OF_RUN = ("data_dir", "keep", "predictions", "log", "device", "threads")
"""The options of ``train`` that are not part of the run, and are repeated in the command that resumes it."""


@dataclass(frozen=True)
class Launch:
    """A sweep file and its options; paths are relative to the working directory.

    Args:
        file: the sweep file.
        options: those of ``REMEMBERED`` that differ from their defaults.

    """

    file: Path
    options: Mapping[str, Any] = field(default_factory=dict)

    def kept(self, folder: Path) -> dict[str, Any]:
        """Return the entry for ``sweep.json``; relative paths are made relative to the sweep folder."""
        return {"file": _seen_from(folder, self.file), "options": kept_options(self.options, folder)}

    @classmethod
    def read(cls, content: object, folder: Path) -> "Launch | None":
        """Parse the result of ``kept``; return None if it is missing or malformed."""
        if not isinstance(content, dict) or not _is_text(content.get("file")):
            return None
        options = _read_options(content.get("options"), folder, REMEMBERED)
        return None if options is None else cls(_seen_from_here(folder, content["file"]), options)


def kept_options(options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return options for a file in a folder; relative paths are made relative to that folder."""
    return {name: _seen_from(folder, value) if name in _PATHS else value for name, value in options.items()}


def options_of_run(run: RunFolder) -> dict[str, Any]:
    """Return the ``OF_RUN`` options with which ``train``, or the sweep of the run, started it; {} if unknown."""
    if run.launch_file.exists():
        return _read_options(read_object(run.launch_file), run.path, OF_RUN) or {}
    path = Path(os.path.normpath(run.path.absolute()))
    sweep = SweepFolder(Path(os.path.relpath(path.parent.parent)))
    is_of_sweep = path.parent.name == sweep.runs.name and sweep.sweep_file.is_file()
    return _options_of_sweep(sweep.path, sweep.sweep_file.stat().st_mtime_ns) if is_of_sweep else {}


@lru_cache(maxsize=8)
def _options_of_sweep(folder: Path, _mtime: int) -> dict[str, Any]:
    """Return the ``OF_RUN`` options of a sweep; cached, because all of its runs share them."""
    launch = Launch.read(read_object(SweepFolder(folder).sweep_file, TABLE).get("launch"), folder)
    if launch is None:
        return {}
    return {"keep": "none", **{name: value for name, value in launch.options.items() if name in OF_RUN}}


def _read_options(options: object, folder: Path, known: Collection[str]) -> dict[str, Any] | None:
    """Parse the result of ``kept_options``; return None if it is malformed."""
    if not isinstance(options, dict) or not all(map(_is_value, options.values())) or set(options) - set(known):
        return None
    return {name: _seen_from_here(folder, value) if name in _PATHS else value for name, value in options.items()}


def _seen_from(folder: Path, path: Path) -> str:
    """Return a path relative to a folder, without resolving links."""
    return str(path) if path.is_absolute() else os.path.relpath(path, folder)


def _seen_from_here(folder: Path, path: str) -> Path:
    return Path(path) if Path(path).is_absolute() else Path(os.path.relpath(folder / path))


def _is_value(value: object) -> bool:
    if isinstance(value, list):
        return all(map(_is_text, value))
    return isinstance(value, bool | int) or _is_text(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.isprintable()
