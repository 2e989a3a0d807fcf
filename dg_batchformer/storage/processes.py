"""Recognize processes by machine, number and start time: from /proc on Linux, from ps and sysctl elsewhere."""

import os
from functools import cache
from pathlib import Path

_PROC = Path("/proc")


def place() -> dict[str, str]:
    """Return the host, its boot and the PID namespace: where all three agree, process numbers mean the same.

    The boot is "" where the system does not identify it.
    """
    try:
        namespace = str((_PROC / "self/ns/pid").readlink())
    except OSError:
        namespace = ""
    return {"host": os.uname().nodename, "boot": _boot(), "pids": namespace}


def process_start(pid: object) -> str | None:
    """Return the start time of a process as text to compare; None if there is no such process or it is a zombie."""
    if type(pid) is not int:  # from a lock that somebody else wrote
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
    """Return an identifier of this boot of the machine, "" where there is none."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return _output("sysctl", "-n", "kern.bootsessionuuid")  # macOS


def _output(*command: str) -> str:
    """Return the output of a program, "" where the program is missing or fails."""
    import subprocess  # status and tables start faster without it

    try:
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C", "TZ": "UTC"})
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
