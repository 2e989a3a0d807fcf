"""The SLURM jobs of a sweep: the runs that were submitted in each, and their states."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from dg_batchformer.errors import MALFORMED, InputError
from dg_batchformer.storage.folders import SweepFolder
from dg_batchformer.storage.lock import held
from dg_batchformer.storage.safe_read import TABLE, read_text
from dg_batchformer.storage.safe_write import open_own

# Messages on jobs that SLURM ended; their runs are due, or resume from their last checkpoint.
ADVICE = {
    "OUT_OF_MEMORY": "its job ran out of memory: increase --slurm mem=...",
    "TIMEOUT": "its job reached the time limit before it could save: increase --slurm time=... or signal=...",
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
    """An array task, or a single job, and its runs; none if it trains winners of a search that are chosen later."""

    job_id: str  # 123_4, or 123
    runs: Sequence[str]

    @property
    def is_follow_up(self) -> bool:
        """Whether it trains winners of a search."""
        return not self.runs


@contextmanager
def submitting(folder: SweepFolder, waiting: Callable[[], object]) -> Iterator[None]:
    """Hold the lock for planning and submitting a sweep.

    Args:
        waiting: called every second while another process holds it.

    """
    folder.slurm.mkdir(parents=True, exist_ok=True)
    with held(folder.slurm / "lock", waiting=waiting):
        yield


def log_jobs(folder: SweepFolder, jobs: Sequence[Job]) -> None:
    """Append submitted jobs to the log."""
    with open_own(folder.jobs_log, "a") as file:
        file.write("\n")  # ends a torn line
        file.writelines(json.dumps({"job": job.job_id, "runs": list(job.runs)}) + "\n" for job in jobs)
        file.flush()
        os.fsync(file.fileno())


def read_jobs(folder: SweepFolder) -> list[Job]:
    """Return all submitted jobs of a sweep, in order."""
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
    """Return the states of queued jobs by id: PENDING, RUNNING, COMPLETING ...

    Raises InputError if SLURM does not answer.
    """
    if not jobs:
        return {}
    known = {job.job_id for job in jobs}
    lines = ask("squeue", "--me", "--noheader", "--array", "--format=%i|%T").splitlines()
    states = dict(line.strip().split("|", 1) for line in lines if "|" in line)
    return {job_id: state for job_id, state in states.items() if job_id in known}


def ended_states(jobs: Sequence[Job]) -> dict[str, str]:
    """Return the final states of jobs by id, from SLURM's accounting; {} if it is not available."""
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
    """Expand sacct's notation for tasks that never ran: ``7_[1,3-5%2]`` is 7_1, 7_3, 7_4 and 7_5."""
    match = _ARRAY.fullmatch(job_ids)
    if match is None:
        return [job_ids]
    spans = [part.split("-") for part in match[2].split(",")]
    return [f"{match[1]}_{task}" for span in spans for task in range(int(span[0]), int(span[-1]) + 1)]


def cancel_jobs(job_ids: Sequence[str]) -> None:
    """Cancel jobs; running ones get SIGTERM first, and save their runs."""
    for start in range(0, len(job_ids), 500):
        ask("scancel", "--quiet", *job_ids[start : start + 500])


def ask(*command: str) -> str:
    """Run a SLURM command and return its output; raise InputError if it is missing, hangs or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        raise InputError(f"{command[0]} is not on this machine; run this on a login node of the cluster") from None
    except subprocess.TimeoutExpired:
        raise InputError(f"{command[0]} did not answer for a minute; try again later") from None
    if done.returncode:
        raise InputError(f"{command[0]} says: {' '.join(done.stderr.split()) or f'status {done.returncode}'}")
    return done.stdout
