"""The SLURM launcher: job arrays through submitit, where one array task is a local launch of a chunk of runs.

SLURM does the scheduling; no process stays on the login node. Before a time limit or preemption, SLURM signals a task,
whose workers save their runs within seconds; the task is requeued and resumes. SIGTERM (scancel) saves and ends it.
"""

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from dg_batchformer.errors import InputError
from dg_batchformer.spec.manifest import SweepRun
from dg_batchformer.spec.options import RunOptions
from dg_batchformer.spec.trajectories import trajectories
from dg_batchformer.storage.folders import SweepFolder
from dg_batchformer.sweep.cluster import Cluster
from dg_batchformer.sweep.console import SweepConsole
from dg_batchformer.sweep.jobs import Job, ask
from dg_batchformer.sweep.launchers.local import LocalLauncher
from dg_batchformer.text.printable import one_line

_REQUEUES = 100_000  # submitit limits requeues, but long chunks rely on them
_DEFAULT_MAX_ARRAY = 1001  # SLURM's default
_SIGNAL_MARGIN = 30  # seconds of the signal's lead reserved for requeueing
_SHARE_OF_LIMIT = 0.8  # planned share of the time limit
_ROOT = Path(__file__).parents[3]
_TAKEN = re.compile(r"[\x00-\x1f\x7f\\]|%[jtaA]")
_Item = TypeVar("_Item")


class Chunk:
    """The work of one array task; submitit pickles it, and calls ``checkpoint`` when SLURM signals.

    Args:
        folder: of the sweep.
        runs: to train.
        options: of all runs.
        devices, threads: of its workers, as in the local launcher.
        seconds: time limit for saving the runs after a signal.
        share: whether runs of one trajectory are trained together.

    """

    share = False  # of chunks that an earlier version submitted

    def __init__(
        self,
        folder: Path,
        runs: Sequence[SweepRun],
        options: RunOptions,
        *,
        devices: Sequence[str],
        threads: int,
        seconds: float,
        share: bool = True,
    ) -> None:
        self.share = share
        self.folder, self.runs, self.options = folder, list(runs), options
        self.devices, self.threads, self.seconds = devices, threads, seconds
        self.launcher: LocalLauncher | None = None

    def __call__(self) -> None:
        """Train the remaining runs of the chunk."""
        if callable(handler := signal.getsignal(signal.SIGUSR2)):
            signal.signal(signal.SIGUSR1, handler)  # clusters send one or the other
        folder = SweepFolder(self.folder)
        left = [run for run in self.runs if not run.state(folder.run(run.spec.id)).is_settled]
        console = SweepConsole(left)
        self.launcher = LocalLauncher(
            folder, self.devices, self.options, console, threads=self.threads, share=self.share
        )
        if not self.launcher.launch(left) and _is_preempted():
            # With a grace time, SLURM treats a task that exits by itself as completed.
            subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=False)

    def checkpoint(self) -> Any:
        """Save all runs; return the submission for the requeued task."""
        from submitit.helpers import DelayedSubmission

        if self.launcher is not None:
            self.launcher.stop(self.seconds)
            self.launcher = None  # not picklable
        return DelayedSubmission(self)


class FollowUp(Chunk):
    """The work of one array task after a search: it trains a share of the runs of the winners.

    Every task chooses the winners by itself, which depends only on the records of the search.

    Args:
        folder: of the sweep.
        declare: chooses the winners and returns their runs, or none if the search is unfinished.
        task, tasks: index of this task, and number of tasks.
        settings: as in ``Chunk``.

    """

    def __init__(
        self,
        folder: Path,
        declare: Callable[[SweepFolder], Sequence[SweepRun]],
        task: int,
        tasks: int,
        **settings: Any,
    ) -> None:
        super().__init__(folder, [], **settings)
        self.declare, self.task, self.tasks = declare, task, tasks

    def __call__(self) -> None:
        """Choose the winners and train the remaining runs of the share."""
        declared = list(self.declare(SweepFolder(self.folder)))
        self.runs = [*chain(*trajectories(declared, share=self.share)[self.task :: self.tasks])]
        if not declared:
            print("the search is not finished, so its winners are not chosen; repeat the sweep command to continue")
        super().__call__()


def _is_preempted() -> bool:
    """Return whether SLURM is preempting this job, in contrast to a cancellation."""
    command = ["scontrol", "--oneliner", "show", "job", os.environ.get("SLURM_JOB_ID", "")]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return "PreemptTime=" in said and "PreemptTime=None" not in said


def runs_in_task(seconds: Sequence[float | None], cluster: Cluster) -> int:
    """Return how many trajectories a task should get to fit into its time limit; 1 if durations are unknown.

    Args:
        seconds: expected duration of each trajectory.
        cluster: resources of a task.

    """
    known = [took for took in seconds if took is not None]
    if not known or len(known) < len(seconds):
        return 1
    room = _SHARE_OF_LIMIT * (60 * cluster.time - cluster.signal) * max(1, cluster.gpus)
    return max(1, int(room / max(max(known), 1.0)))


class SlurmLauncher:
    """Submits the runs of a sweep as job arrays; raises InputError if SLURM rejects one.

    Args:
        folder: of the sweep.
        options: of all runs.
        cluster: resources of a task.
        runs_per_task: number of runs, where those that are trained together count as one.
        share: whether runs of one trajectory are trained together.

    """

    def __init__(
        self, folder: SweepFolder, options: RunOptions, cluster: Cluster, runs_per_task: int, *, share: bool = True
    ) -> None:
        self.path, self.cluster, self.runs_per_task, self.share = folder.path.absolute(), cluster, runs_per_task, share
        data_dir = None if options.data_dir is None else options.data_dir.absolute()
        devices = [f"cuda:{index}" for index in range(cluster.gpus)] or ["cpu"]
        self.settings: dict[str, Any] = {  # of every task
            "options": replace(options, data_dir=data_dir),
            "devices": devices,
            "threads": max(1, cluster.cpus // len(devices)),
            "seconds": max(5.0, cluster.signal - _SIGNAL_MARGIN),
            "share": share,
        }

    def submit(self, runs: Sequence[SweepRun]) -> Iterator[list[Job]]:
        """Submit runs; yield the jobs of each array."""
        parts = _parts(trajectories(runs, share=self.share), self.runs_per_task)
        yield from self._submit([Chunk(self.path, [*chain(*part)], **self.settings) for part in parts])

    def submit_follow_up(
        self, declare: Callable[[SweepFolder], Sequence[SweepRun]], number: int, *, after: Sequence[Job]
    ) -> list[Job]:
        """Submit the runs of the winners of a search, to start when its jobs have ended; return their jobs.

        Args:
            declare: chooses the winners and returns their runs, or none if the search is unfinished; called by every
                task.
            number: of the runs that ``declare`` returns.
            after: the jobs of the search.

        """
        tasks = -(-number // self.runs_per_task)
        work = [FollowUp(self.path, declare, task, tasks, **self.settings) for task in range(tasks)]
        dependency = ":".join(["afterany", *dict.fromkeys(job.job_id.split("_")[0] for job in after)])
        return [job for part in self._submit(work, dependency) for job in part]

    def _submit(self, work: Sequence[Chunk], dependency: str = "") -> Iterator[list[Job]]:
        """Submit tasks as job arrays; yield the jobs of each array.

        Args:
            work: of each task.
            dependency: in the notation of sbatch, '' for none.

        """
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        _refuse_path(self.path)
        longest = _longest_array()  # also checks that SLURM is available
        logs = SweepFolder(self.path).slurm
        executor = submitit.SlurmExecutor(logs, max_num_timeout=_REQUEUES)
        submitted = 0
        for part in _parts(work, longest):
            name = f"{one_line(self.path.name)}[{submitted + 1}-{submitted + len(part)}]"
            pattern = "%A_%a" if len(part) > 1 else "%j"
            try:
                executor.update_parameters(job_name=name, **_parameters(self.cluster, logs, pattern, dependency))
                with executor.batch():
                    jobs = [executor.submit(chunk) for chunk in part]
            except (
                RuntimeError,
                OSError,
                FailedJobError,
                FailedSubmissionError,
                subprocess.CalledProcessError,
            ) as error:
                reason = " ".join(str(getattr(error, "stderr", None) or error).split())
                raise InputError(f"SLURM refused the sweep after {submitted} tasks: {reason}") from None
            submitted += len(part)
            yield [Job(job.job_id, [run.spec.id for run in chunk.runs]) for job, chunk in zip(jobs, part, strict=True)]


def _refuse_path(path: Path) -> None:
    """Raise InputError for a folder whose name sbatch or submitit would misinterpret."""
    if _TAKEN.search(str(path)):
        raise InputError(
            f"{str(path)!r} cannot be used for SLURM logs: it contains a control character, a backslash or one of %j, "
            "%t, %a and %A, which SLURM replaces by job ids; give another --results_dir"
        )


def _parts(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _parameters(cluster: Cluster, logs: Path, job: str, dependency: str) -> dict[str, Any]:
    """Return the settings under submitit's names.

    Args:
        cluster: the settings.
        logs: folder of the logs; % is escaped, as SLURM expands patterns in it.
        job: SLURM's pattern for the job id.
        dependency: when tasks may start, '' for at once.

    """
    log = f"{logs}/".replace("%", "%%") + job
    asked: dict[str, Any] = {name: getattr(cluster, name) for name in ("partition", "account", "qos", "constraint")}
    return {
        **{name: value for name, value in asked.items() if value is not None},
        **({"gpus_per_node": cluster.gpus} if cluster.gpus else {}),
        "cpus_per_task": cluster.cpus,
        "mem": cluster.mem,
        "time": cluster.time,
        "signal_delay_s": cluster.signal,
        "array_parallelism": cluster.array,
        "additional_parameters": {
            "output": f"{log}_0_log.out",
            **({"dependency": dependency} if dependency else {}),
        },
        # srun of SLURM 22.05 and later does not inherit the number of cores.
        "srun_args": [f"--cpus-per-task={cluster.cpus}", f"--output={log}_%t_log.out"],
        # The package may not be installed, as in a clone.
        "setup": [*cluster.setup, f"export PYTHONPATH={shlex.quote(str(_ROOT))}${{PYTHONPATH:+:$PYTHONPATH}}"],
        "stderr_to_stdout": True,
    }


def _longest_array() -> int:
    """Return the maximal number of tasks of a job array on this cluster."""
    limits = [
        line.split("=")[1] for line in ask("scontrol", "show", "config").splitlines() if line.startswith("MaxArraySize")
    ]
    return max(1, int(limits[0]) - 1) if limits else _DEFAULT_MAX_ARRAY - 1
