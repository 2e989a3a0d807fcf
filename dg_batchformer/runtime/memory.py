"""Memory: what this machine, or the control group of a job or container, has left, and how workers tell of cards."""

import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_ROOT = Path("/sys/fs/cgroup")


class CardMemory(NamedTuple):
    """The memory of a GPU, in bytes: what is free, what one worker holds, and the most that its run has held."""

    free: int
    held: int
    most: int


def available_memory() -> int | None:
    """Return the bytes that may still be taken; None where the kernel does not tell."""
    found = [told_by_kernel("/proc/meminfo", "MemAvailable"), *(_of_group(folder) for folder in _groups())]
    return min((left for left in found if left is not None), default=None)


def peak_memory(usage: resource.struct_rusage) -> int:
    """Return the most memory that a process held, in bytes: systems count it in KiB, except macOS."""
    return usage.ru_maxrss if sys.platform == "darwin" else 1024 * usage.ru_maxrss


def told_by_kernel(file: str, name: str) -> int | None:
    """Return the bytes that a file of /proc has by a name; None where the kernel does not tell."""
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)


def _groups() -> Iterator[Path]:
    """Yield the folders of the control groups that may limit this process: its own and all above."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            if kinds in ("", "memory"):
                folder = _ROOT / kinds / path.lstrip("/")
                yield from (one for one in (folder, *folder.parents) if one.is_relative_to(_ROOT))


def _of_group(folder: Path) -> int | None:
    """Return what a group of version 2 or 1 has left; files in memory count as free, for they can be dropped."""
    for limit, use, prefix in (
        ("memory.max", "memory.current", ""),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ):
        with suppress(OSError, ValueError, KeyError):  # "max": no limit
            lines = (folder / "memory.stat").read_text().splitlines()
            stat = {name: int(value) for name, value in (line.split() for line in lines)}
            files = stat[f"{prefix}inactive_file"] + stat[f"{prefix}active_file"]
            return int((folder / limit).read_text()) - int((folder / use).read_text()) + files
    return None
