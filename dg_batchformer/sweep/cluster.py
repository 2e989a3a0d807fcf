"""What a cluster is asked for: SLURM settings from the command line, a file, or the person's own configuration."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from dg_batchformer.errors import MALFORMED, InputError
from dg_batchformer.storage.safe_read import YAML, Unreadable, read_text

_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")


@dataclass(frozen=True)
class Cluster:
    """What one array task, which trains a chunk of runs, gets from SLURM.

    Args:
        partition, account, qos, constraint: as sbatch takes them; None leaves them to the cluster.
        gpus: on one node, a worker for each. cpus: cores. mem: memory as ``16G``.
        time: limit in minutes. signal: seconds ahead of it at which a task saves its runs and asks to be requeued.
        array: how many tasks may run at once.
        setup: shell commands before Python starts, as ``module load cuda``.

    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpus: int = 0
    cpus: int = 1
    mem: str = "8G"
    time: int = 240
    signal: int = 120
    array: int = 256
    setup: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("gpus", "cpus", "time", "signal", "array"):
            low = 0 if name in ("gpus", "signal") else 1
            if getattr(self, name) < low:
                raise InputError(f"slurm {name} is {getattr(self, name)}, allowed is a whole number, at least {low}")
        for name in ("partition", "account", "qos", "constraint", "mem"):
            if not str(getattr(self, name)).isprintable():
                raise InputError(f"slurm {name} is {getattr(self, name)!r}, allowed is one line that can be printed")
        if self.signal >= 60 * self.time:
            raise InputError(f"slurm signal is {self.signal} seconds, but the time limit is {self.time} minutes")


SETTINGS = tuple(field.name for field in fields(Cluster))


def load_cluster(given: Sequence[str], file: Path | None) -> Cluster:
    """Return the settings of a cluster: ``key=value`` texts over those of a file.

    The file is the one given, else ``dg_batchformer.yaml`` in ``$XDG_CONFIG_HOME`` or ``~/.config``, if there is one;
    its mapping ``slurm:`` counts. Raises InputError for what SLURM cannot be asked for.
    """
    settings: dict[str, Any] = {}
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "dg_batchformer.yaml"
    for source in [file] if file is not None else [home] * home.is_file():
        settings |= {name: _read(name, value, str(source)) for name, value in _mapping(source).items()}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--slurm takes key=value, got {text!r}; as --slurm partition=gpu time=4:00:00")
        settings[name] = _read(name, value, "--slurm")
    return Cluster(**settings)


def _mapping(file: Path) -> Mapping[str, Any]:
    try:
        content = yaml.load(
            read_text(file, YAML), Loader=yaml.BaseLoader
        )  # texts only: YAML would read 4:00:00 as a number
    except Unreadable:
        raise
    except (OSError, yaml.YAMLError, *MALFORMED) as error:
        raise InputError(f"{file} cannot be read as YAML: {' '.join(str(error).split())}") from None
    block = content.get("slurm") if isinstance(content, dict) else None
    if not isinstance(block, dict):
        raise InputError(f"{file} has no mapping 'slurm:' with settings such as partition: gpu")
    return block


def _read(name: str, value: Any, source: str) -> Any:
    """Turn a setting as people write it into what Cluster holds."""
    kinds = {field.name: field.type for field in fields(Cluster)}
    if name not in kinds:
        near = get_close_matches(str(name), kinds, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"{source}: unknown slurm setting {name!r}{hint} (known: {', '.join(kinds)})")
    if name == "time":
        return _minutes(value, source)
    if name == "setup":
        return tuple(map(str, value)) if isinstance(value, list) else (str(value),)
    if kinds[name] is not int:
        return str(value)
    try:
        return int(value)
    except (TypeError, ValueError):
        raise InputError(f"{source}: slurm {name} is {value!r}, allowed is a whole number") from None


def _minutes(value: Any, source: str) -> int:
    """Read a time limit as sbatch does: minutes, m:s, h:m:s, d-h, d-h:m or d-h:m:s."""
    match = _TIME.fullmatch(str(value).strip())
    if match is None:
        raise InputError(f"{source}: slurm time is {value!r}; write minutes, 4:00:00 or 1-12:00 (days-hours:minutes)")
    days, first, second, third = (None if part is None else int(part) for part in match.groups())
    if days is not None:
        return 1440 * days + 60 * (first or 0) + (second or 0)
    if third is not None:
        return 60 * (first or 0) + (second or 0) + (third > 0)
    return (first or 0) + (second is not None and second > 0)
