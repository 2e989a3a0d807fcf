"""How much memory this machine, or the part of it that a job was given, has left."""

from pathlib import Path

_CGROUPS = (  # limit and use, of version 2 and of version 1
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)


def available_memory() -> int | None:
    """Return the bytes that may still be taken; None where the kernel does not tell."""
    found = [left for left in (_of_machine(), *(_of_cgroup(*files) for files in _CGROUPS)) if left is not None]
    return min(found, default=None)


def _of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


def _of_cgroup(limit: Path, use: Path) -> int | None:
    try:
        return int(limit.read_text()) - int(use.read_text())
    except (OSError, ValueError):  # "max": no limit
        return None
