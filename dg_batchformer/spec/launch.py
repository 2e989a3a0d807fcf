"""The command that started a sweep, stored in ``sweep.json`` so that status, tables and report can print it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PATHS = ("data_dir", "cluster")
DEFAULT_RESULTS = Path("results")
REMEMBERED = (*_PATHS, "keep", "predictions", "log", "launcher", "slurm", "runs_per_task", "devices", "threads")
"""The options of ``sweep`` that are repeated in the command that continues it."""


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
        return {"file": _seen_from(folder, self.file), "options": self._moved(lambda path: _seen_from(folder, path))}

    @classmethod
    def read(cls, content: object, folder: Path) -> "Launch | None":
        """Parse the result of ``kept``; return None if it is missing or malformed."""
        if not isinstance(content, dict) or not _is_text(content.get("file")):
            return None
        options = content.get("options")
        if not isinstance(options, dict) or not all(map(_is_value, options.values())) or set(options) - set(REMEMBERED):
            return None
        launch = cls(_seen_from_here(folder, content["file"]), options)
        return cls(launch.file, launch._moved(lambda path: _seen_from_here(folder, path)))

    def _moved(self, move: Any) -> dict[str, Any]:
        return {name: move(value) if name in _PATHS else value for name, value in self.options.items()}


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
