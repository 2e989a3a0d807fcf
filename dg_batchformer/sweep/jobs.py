"""The SLURM jobs of a sweep: which were submitted with which runs, and what SLURM says has become of them."""

import json
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from dg_batchformer.errors import MALFORMED, InputError
from dg_batchformer.storage.folders import SweepFolder
from dg_batchformer.storage.lock import held
from dg_batchformer.storage.safe_read import TABLE, read_text
from dg_batchformer.storage.safe_write import open_own

# What people are told of a job that SLURM ended; the run itself is due, or goes on from its last checkpoint.
ADVICE = {
    "OUT_OF_MEMORY": "SLURM ended its job for lack of memory: give --slurm mem=... more",
    "TIMEOUT": "its job ran out of time before it could save: give --slurm time=... or signal=... more",
    "NODE_FAIL": "the node of its job failed",
    "BOOT_FAIL": "the node of its job did not start",
    "PREEMPTED": "its job was preempted and not requeued",
    "CANCELLED": "its job was cancelled",
    "FAILED": "its job failed; see the logs in slurm/",
    "DEADLINE": "its job would have missed a deadline",
}

_ARRAY = re.compile(r"(\d+)_\[([\d,-]+)(?:%\d+)?\]")


@dataclass(frozen=True)
class Job:
    """An array task, or a job of its own, and the runs it was given."""

    job_id: str  # 123_4, or 123
    runs: Sequence[str]


@contextmanager
def submitting(folder: SweepFolder) -> Iterator[None]:
    """Be the only one who plans and submits for a sweep."""
    folder.slurm.mkdir(parents=True, exist_ok=True)
    with held(folder.slurm / "lock", waits=True):
        yield


def log_jobs(folder: SweepFolder, jobs: Sequence[Job]) -> None:
    """Remember jobs that were submitted."""
    with open_own(folder.jobs_log, "a") as file:
        file.write("\n")  # a torn line ends here
        file.writelines(json.dumps({"job": job.job_id, "runs": list(job.runs)}) + "\n" for job in jobs)
        file.flush()
        os.fsync(file.fileno())


def read_jobs(folder: SweepFolder) -> list[Job]:
    """Return all jobs ever submitted for a sweep, in order."""
    try:
        lines = read_text(folder.jobs_log, TABLE, errors="replace").splitlines()
    except OSError:
        return []
    jobs = []
    for line in lines:
        with suppress(*MALFORMED):
            content = json.loads(line)
            jobs.append(Job(str(content["job"]), [str(run) for run in content["runs"]]))
    return jobs


def queued_states(jobs: Sequence[Job]) -> dict[str, str]:
    """Return the states of jobs that SLURM still has in hand, by id: PENDING, RUNNING, COMPLETING ...

    Raises InputError where SLURM cannot be asked.
    """
    if not jobs:
        return {}
    known = {job.job_id for job in jobs}
    lines = ask("squeue", "--me", "--noheader", "--array", "--format=%i|%T").splitlines()
    states = dict(line.strip().split("|", 1) for line in lines if "|" in line)
    return {job_id: state for job_id, state in states.items() if job_id in known}


def ended_states(jobs: Sequence[Job]) -> dict[str, str]:
    """Return how jobs ended, by id, as far as SLURM's accounting tells; nothing where there is none."""
    if not jobs:
        return {}
    ids = ",".join(sorted({job.job_id.split("_")[0] for job in jobs}))
    try:
        lines = ask("sacct", "--allocations", "--noheader", "--parsable2", "--format=JobID,State", f"--jobs={ids}")
    except InputError:
        return {}
    pairs = (line.split("|", 1) for line in lines.splitlines() if "|" in line)
    return {job_id: state.split()[0].rstrip("+") for ids, state in pairs if state for job_id in _expanded(ids)}


def _expanded(job_ids: str) -> list[str]:
    """Spell out how sacct writes tasks that never ran: ``7_[1,3-5%2]`` is 7_1, 7_3, 7_4 and 7_5."""
    match = _ARRAY.fullmatch(job_ids)
    if match is None:
        return [job_ids]
    spans = [part.split("-") for part in match[2].split(",")]
    return [f"{match[1]}_{task}" for span in spans for task in range(int(span[0]), int(span[-1]) + 1)]


def cancel_jobs(job_ids: Sequence[str]) -> None:
    """Ask SLURM to end jobs; running ones get SIGTERM first, and save their runs."""
    for start in range(0, len(job_ids), 500):
        ask("scancel", "--quiet", *job_ids[start : start + 500])


def ask(*command: str) -> str:
    """Return what a command of SLURM prints; raise InputError where it is not there, hangs or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        raise InputError(f"{command[0]} is not on this machine; SLURM is asked from a login node") from None
    except subprocess.TimeoutExpired:
        raise InputError(f"{command[0]} did not answer for a minute; try again later") from None
    if done.returncode:
        raise InputError(f"{command[0]} says: {' '.join(done.stderr.split()) or f'status {done.returncode}'}")
    return done.stdout
