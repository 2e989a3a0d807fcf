"""Identification of processes by machine, PID and start time: from /proc on Linux, from ps and sysctl elsewhere."""

import os
from functools import cache
from pathlib import Path

_PROC = Path("/proc")


def place() -> dict[str, str]:
    """Return the host, its boot and the PID namespace; PIDs are comparable only if all three agree.

    The boot is "" if the system does not identify it.
    """
    try:
        namespace = str((_PROC / "self/ns/pid").readlink())
    except OSError:
        namespace = ""
    return {"host": os.uname().nodename, "boot": _boot(), "pids": namespace}


def process_start(pid: object) -> str | None:
    """Return the start time of a process as text; None if there is no such process or it is a zombie."""
    if type(pid) is not int:  # from a malformed lock
        return None
    if not (_PROC / "self").exists():
        state, _, started = _output("ps", "-o", "stat=,lstart=", "-p", str(pid)).partition(" ")
        return None if state.startswith("Z") else started.strip() or None
    try:
        fields = (_PROC / f"{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


@cache
def _boot() -> str:
    """Return an identifier of the current boot of the machine, or ""."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return _output("sysctl", "-n", "kern.bootsessionuuid")  # macOS


def _output(*command: str) -> str:
    """Return the output of a program; "" if it is missing or fails."""
    import subprocess  # slow to import, so only when needed

    try:
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C", "TZ": "UTC"})
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
