#!/usr/bin/env python3
"""Measure the overhead of sweeps: tools/bench_sweep.py [--runs 50000] [--parts plan submit overhead]

  plan      plan and status of a sweep of that many runs, with none, half and all of them trained: seconds and peak
            memory of whole processes
  submit    submission of all runs to SLURM in tasks of 50, cancelled afterwards; needs a working SLURM, such as that of
            tools/local_slurm.sh
  overhead  overhead of the local launcher per run, with tiny runs; and the time from the death of a worker until
            another one resumes its run
Results are printed as Markdown.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import yaml

from dg_batchformer.runtime.memory import peak_memory
from dg_batchformer.spec.manifest import SweepRun, manifest_content
from dg_batchformer.spec.options import RunOptions
from dg_batchformer.spec.run import RunRequest
from dg_batchformer.spec.sweep_file import load_sweep
from dg_batchformer.storage.folders import State, SweepFolder
from dg_batchformer.sweep.expand import expand
from dg_batchformer.sweep.launchers.local import LocalLauncher

PARTS = ("plan", "submit", "overhead")
PROGRAM = (sys.executable, "-m", "dg_batchformer")


class Timed(NamedTuple):
    """A finished process: seconds, and peak memory in MiB."""

    seconds: float
    memory: float


def main() -> None:
    """Measure the requested parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50_000, metavar="N", help="of the large sweep (default: 50000)")
    parser.add_argument("--tiny_runs", type=int, default=40, metavar="N", help="that are trained (default: 40)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    for part in options.parts:
        with tempfile.TemporaryDirectory() as path:
            MEASURE[part](Path(path), options)


def plan(path: Path, options: argparse.Namespace) -> None:
    """Time planning and status."""
    file, folder, runs = large_sweep(path, options.runs)
    folder.write(manifest_content(load_sweep(file), runs))
    print(f"\n### Plan and status of {len(runs)} runs\n\n| trained | verb | seconds | MiB |\n|---|---|---|---|")
    for share in (0.0, 0.5, 1.0):
        folder.states_log.unlink(missing_ok=True)
        for run in runs[: int(share * len(runs))]:
            folder.run(run.spec.id).path.mkdir(parents=True, exist_ok=True)
            folder.log_final(run.spec.id, State.DONE, 60.0)
        verbs = {"status": ["status", str(folder.path)]}
        if share < 1:
            verbs["sweep --launcher dry_run"] = dry_run(file, folder)
        for verb, words in verbs.items():
            seconds, memory = timed([*PROGRAM, *words])
            print(f"| {share:.0%} | {verb} | {seconds:.1f} | {memory:.0f} |", flush=True)


def submit(path: Path, options: argparse.Namespace) -> None:
    """Time the submission to a real SLURM."""
    if shutil.which("squeue") is None or subprocess.run(["squeue"], capture_output=True).returncode:
        sys.exit("submit needs a SLURM that answers: tools/local_slurm.sh start, then eval its env")
    file, folder, runs = large_sweep(path, options.runs)
    words = ["sweep", str(file), "--results_dir", str(folder.path.parent), "--launcher", "slurm"]
    words += ["--runs_per_task", "50", "--slurm", "cpus=1", "mem=100M", "array=1"]
    seconds, memory = timed([*PROGRAM, *words])
    print(f"\n### Submission of {len(runs)} runs, 50 a task\n\n* {seconds:.1f} s, {memory:.0f} MiB", flush=True)
    seconds, _ = timed([*PROGRAM, "status", str(folder.path)])
    print(f"* status, SLURM asked: {seconds:.1f} s", flush=True)
    subprocess.run([*PROGRAM, "cancel", str(folder.path)], check=True, stdout=subprocess.DEVNULL)
    while subprocess.run(["squeue", "-h", "--me"], capture_output=True, text=True).stdout.strip():
        time.sleep(1)  # before their folder is deleted


def overhead(path: Path, options: argparse.Namespace) -> None:
    """Compare the time of a local launch of tiny runs with their training time."""
    content = {"datasets": ["Toy"], "algorithms": ["ERM"], "protocol": "quick", "steps": 201, "test_envs": ["A"]}
    file = path / "tiny.yaml"
    file.write_text(yaml.safe_dump({**content, "trials": options.tiny_runs, "hparams": {"mlp_width": 16}}))
    folder = SweepFolder(path / "results" / "tiny")
    words = ["sweep", str(file), "--results_dir", str(folder.path.parent), "--devices", "cpu", "--threads", "1"]
    seconds, _ = timed([*PROGRAM, *words])
    trained = sum(final.seconds or 0 for final in folder.final_states().values())
    nothing, _ = timed([*PROGRAM, *words])  # nothing to train: the cost of starting
    added = (seconds - nothing - trained) / options.tiny_runs
    print(f"\n### Local launcher, {options.tiny_runs} runs on one worker\n")
    print(f"* {trained / options.tiny_runs:.3f} s of training a run, {added:.3f} s added to each; ", end="")
    print(f"{nothing:.1f} s to start, once")
    print(f"* a run whose worker is killed goes on after {replacement(folder, options):.2f} s (median of 5)")


def replacement(folder: SweepFolder, options: argparse.Namespace) -> float:
    """Return the seconds from the death of a worker to the first update of its run in another."""
    begun: list[float] = []
    killed: list[float] = []

    class Killing:
        """A report that kills the worker of each starting run, five times."""

        def begin(self, run: SweepRun, start: int) -> None:
            begun.append(time.perf_counter())

        def progress(self, run: SweepRun, done: int) -> None:
            if len(killed) < min(5, len(begun)):
                owner = json.loads(folder.run(run.spec.id).lock_file.read_text())
                killed.append(time.perf_counter())
                os.kill(owner["pid"], signal.SIGKILL)

        def ended(self, run: SweepRun, how: str, sentence: str) -> None: ...
        def note(self, run: SweepRun, sentence: str) -> None: ...

    spec = RunRequest(dataset="Toy", protocol="quick", steps=2001, hparams={"mlp_width": 16, "batch_size": 8}).resolve()
    runs = [SweepRun("ERM", replace(spec, trial_seed=trial, seed=trial)) for trial in range(5)]
    LocalLauncher(folder, ["cpu"], RunOptions(), Killing(), threads=1).launch(runs)
    return statistics.median(after - death for death, after in zip(killed, begun[1:], strict=False))


def large_sweep(path: Path, count: int) -> tuple[Path, SweepFolder, list[SweepRun]]:
    """Write a sweep of about ``count`` runs; return its file, its folder and its runs."""
    content = {"datasets": ["Toy"], "algorithms": ["ERM", "ERM+BF", "SWAD", "SWAD+BF", "CORAL"], "trials": 5}
    file = path / "large.yaml"
    file.write_text(yaml.safe_dump({**content, "protocol": "quick", "draws": max(1, count // 100)}))
    return file, SweepFolder(path / "results" / "large"), expand(load_sweep(file))


def dry_run(file: Path, folder: SweepFolder) -> list[str]:
    return ["sweep", str(file), "--results_dir", str(folder.path.parent), "--launcher", "dry_run"]


def timed(command: Sequence[str]) -> Timed:
    """Run a command to its end; exit if it fails."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    return Timed(time.perf_counter() - began, peak_memory(usage) / 2**20)


MEASURE = {"plan": plan, "submit": submit, "overhead": overhead}

if __name__ == "__main__":
    main()
