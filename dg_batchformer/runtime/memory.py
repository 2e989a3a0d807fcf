"""Free memory of this machine or of its control group (a job or container), and of GPUs as workers report it."""

import resource
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

_ROOT = Path("/sys/fs/cgroup")


class CardMemory(NamedTuple):
    """Memory of a GPU, in bytes: free, held by one worker, and the most that the worker's run has held."""

    free: int
    held: int
    most: int


HOST = "host"


@dataclass
class Footprint:
    """Memory of a worker, in bytes, by place: of the host, and of its GPU under the name of the device.

    Args:
        held: what it holds, as last reported.
        most: the most that it has held in its task.
        has_settled: whether its task has made updates, and so allocated what it needs.
        ran_out: whether a run of its task was out of memory.

    """

    held: Counter[str] = field(default_factory=Counter)
    most: Counter[str] = field(default_factory=Counter)
    has_settled: bool = False
    ran_out: bool = False

    def begin(self) -> None:
        """Begin a task."""
        self.most.clear()
        self.has_settled = self.ran_out = False


def available_memory() -> int | None:
    """Return how many bytes can still be allocated; None if the kernel does not report it."""
    found = [told_by_kernel("/proc/meminfo", "MemAvailable"), *(_of_group(folder) for folder in _groups())]
    return min((left for left in found if left is not None), default=None)


def peak_memory(usage: resource.struct_rusage) -> int:
    """Return the most memory that a process held, in bytes: systems count it in KiB, except macOS."""
    return usage.ru_maxrss if sys.platform == "darwin" else 1024 * usage.ru_maxrss


def told_by_kernel(file: str, name: str) -> int | None:
    """Return a value of a /proc file, in bytes; None if it is not reported."""
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)


def _groups() -> Iterator[Path]:
    """Yield the folders of the control groups that may limit this process: its own and all of their parents."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            if kinds in ("", "memory"):
                folder = _ROOT / kinds / path.lstrip("/")
                yield from (one for one in (folder, *folder.parents) if one.is_relative_to(_ROOT))


def _of_group(folder: Path) -> int | None:
    """Return the free bytes of a cgroup (v2 or v1); cached files count as free, as the kernel can drop them."""
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
