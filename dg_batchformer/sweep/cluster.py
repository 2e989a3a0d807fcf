"""SLURM settings, from the command line, a file, or the user's configuration."""

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
    """Resources of one array task, which trains a chunk of runs.

    Args:
        partition, account, qos, constraint: as for sbatch; None uses the cluster's default.
        gpus: on one node, with one worker each. cpus: cores. mem: memory, such as ``16G``.
        time: limit in minutes. signal: seconds before the limit at which a task saves its runs and requeues itself.
        array: maximal number of concurrent tasks.
        setup: shell commands before Python starts, such as ``module load cuda``.

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
                raise InputError(f"slurm {name} is {getattr(self, name)}, but must be a whole number, at least {low}")
        for name in ("partition", "account", "qos", "constraint", "mem"):
            if not str(getattr(self, name)).isprintable():
                raise InputError(f"slurm {name} is {getattr(self, name)!r}, but must be one printable line")
        if self.signal >= 60 * self.time:
            raise InputError(f"slurm signal is {self.signal} seconds, but the time limit is {self.time} minutes")


SETTINGS = tuple(field.name for field in fields(Cluster))


def load_cluster(given: Sequence[str], file: Path | None) -> Cluster:
    """Return SLURM settings: those given as ``key=value`` override those of a file.

    The file is the given one, or else ``dg_batchformer.yaml`` in ``$XDG_CONFIG_HOME`` or ``~/.config``, if it exists;
    settings are in its mapping ``slurm:``. Raises InputError for invalid settings.
    """
    settings: dict[str, Any] = {}
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "dg_batchformer.yaml"
    if file is None and home.is_file():
        file = home
    if file is not None:
        settings |= {name: _read(name, value, str(file)) for name, value in _mapping(file).items()}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--slurm needs key=value, got {text!r}; for example, --slurm partition=gpu time=4:00:00")
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
    """Parse a setting to the type of its Cluster field."""
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
        raise InputError(f"{source}: slurm {name} is {value!r}, but must be a whole number") from None


def _minutes(value: Any, source: str) -> int:
    """Parse a time limit in sbatch's formats to minutes: minutes, m:s, h:m:s, d-h, d-h:m or d-h:m:s."""
    match = _TIME.fullmatch(str(value).strip())
    if match is None:
        raise InputError(f"{source}: slurm time is {value!r}; write minutes, 4:00:00 or 1-12:00 (days-hours:minutes)")
    days, first, second, third = (None if part is None else int(part) for part in match.groups())
    if days is not None:
        return 1440 * days + 60 * (first or 0) + (second or 0)
    if third is not None:
        return 60 * (first or 0) + (second or 0) + _begun_minute(third)
    return (first or 0) + _begun_minute(second)


def _begun_minute(seconds: int | None) -> int:
    return 1 if seconds else 0
