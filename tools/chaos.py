#!/usr/bin/env python3
"""Kill workers and launches of a sweep and check that no result is lost: tools/chaos.py [--runs 208] [--seconds 0]

Trains a sweep of tiny runs twice: undisturbed, with every run by itself; and with rows that are trained at once, while
workers, and sometimes the launch itself, are killed at random times by SIGKILL or SIGTERM and started again until all
runs are done. Runs that were given up, as three of their workers died in a row, are tried again as a user would. Then
the records are compared. With --seconds, further sweeps follow for that time. Exit status 1 if a run is lost, differs,
or was trained to its end twice.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import yaml

from dg_batchformer.spec.run import RunSpec
from dg_batchformer.spec.sweep_file import load_sweep
from dg_batchformer.storage.folders import State, SweepFolder
from dg_batchformer.sweep.expand import expand

VOLATILE = ("step_time", "mem_gb")
WORKERS = 2
GIVEN_UP = "3 worker processes died during this run"
LAUNCH_SHARE = 0.05  # share of the faults that hit the launch instead of a worker


def main() -> int:
    """Disturb sweeps, print the outcome, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=208, metavar="N", help="of a sweep, in sixteens (default: 208)")
    every = "between faults, in the mean time that a worker needs for an undisturbed run (default: 2)"
    parser.add_argument("--every", type=float, default=2, metavar="RUNS", help=every)
    parser.add_argument("--seconds", type=float, default=0, metavar="N", help="at least this long (default: one sweep)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the faults (default: 0)")
    options = parser.parse_args()
    dice, began, total = random.Random(options.seed), time.monotonic(), Counter[str]()
    for turn in range(10**6):
        if turn and time.monotonic() - began > options.seconds:
            break
        with tempfile.TemporaryDirectory() as path:
            total += compare(Path(path), options, dice, lr=1e-3 * (1 + turn))
        total["sweeps"] += 1
        print(
            ", ".join(f"{name} {total[name]}" for name in ("sweeps", "runs", "faults", "given up", *FAILURES)),
            flush=True,
        )
    return 1 if any(total[name] for name in FAILURES) else 0


FAILURES = ("lost", "differing", "trained twice")


def compare(path: Path, options: argparse.Namespace, dice: random.Random, lr: float) -> Counter[str]:
    """Train a sweep undisturbed, each run by itself, and disturbed, with shared trainings; return the differences."""
    content = {"datasets": ["Toy"], "algorithms": ["ERM", "SWAD", "BF", "SWAD+BF"], "protocol": "quick", "steps": 81}
    content |= {"trials": max(1, options.runs // 16), "checkpoint_freq": 20}
    content["hparams"] = {"mlp_width": 16, "batch_size": 8, "lr": lr}
    whole, torn = (SweepFolder(path / name / "chaos") for name in ("whole", "torn"))
    for folder, share in ((whole, False), (torn, True)):
        folder.path.mkdir(parents=True)
        file = folder.path.with_suffix(".yaml")
        file.write_text(yaml.safe_dump({**content, "share": share}))
    specs = [run.spec for run in expand(load_sweep(file))]
    began = time.monotonic()
    start(whole.path.with_suffix(".yaml"), whole).wait()
    seconds_per_run = WORKERS * (time.monotonic() - began) / len(specs)
    found = disturb(file, torn, specs, options.every * seconds_per_run, dice)
    found["runs"] = len(specs)
    for spec in specs:
        run = torn.run(spec.id)
        found["lost"] += run.state() is not State.DONE
        found["differing"] += records(torn, spec) != records(whole, spec)
        log = run.log_file.read_text() if run.log_file.exists() else ""  # a lost run may never have begun
        found["trained twice"] += log.count("done after") > 1
        if run.state() is State.FAILED:
            print(f"{spec.id}: {run.failure()}", file=sys.stderr)
    return found


def start(file: Path, folder: SweepFolder, *more: str) -> subprocess.Popen[bytes]:
    """Start a launch, perhaps with more arguments; its output goes to launch.log."""
    devices = ",".join(["cpu"] * WORKERS)
    command = [sys.executable, "-m", "dg_batchformer", "sweep", str(file), "--devices", devices, "--threads", "1"]
    folder.path.mkdir(parents=True, exist_ok=True)
    with (folder.path / "launch.log").open("ab") as log:
        return subprocess.Popen([*command, "--results_dir", str(folder.path.parent), *more], stdout=log, stderr=log)


def disturb(file: Path, folder: SweepFolder, specs: list[RunSpec], seconds: float, dice: random.Random) -> Counter[str]:
    """Train a sweep to its end despite kills, so many seconds apart on average; count them, and runs given up."""
    found = Counter[str]()
    launch = start(file, folder)
    while True:
        try:
            launch.wait(dice.expovariate(1 / seconds))
        except subprocess.TimeoutExpired:
            found["faults"] += hit(launch.pid, dice)
            continue
        if all(folder.run(spec.id).state() is State.DONE for spec in specs):
            return found
        failed = [run for run in (folder.run(spec.id) for spec in specs) if run.state() is State.FAILED]
        if any(GIVEN_UP not in run.failure() for run in failed):
            return found  # lost: a kill alone must not let a run fail
        found["given up"] += len(failed)
        launch = start(file, folder, *(["--retry", "failed"] if failed else []))


def hit(launch: int, dice: random.Random) -> int:
    """Send one of two signals to a worker or to the launch; return 1 if the process existed."""
    server = [child for child in children(launch) if children(child)]
    workers = [worker for parent in server for worker in children(parent)]
    victims = [launch] if dice.random() < LAUNCH_SHARE else workers
    if not victims:
        return 0
    try:
        os.kill(dice.choice(victims), dice.choice([signal.SIGKILL, signal.SIGTERM]))
    except ProcessLookupError:
        return 0
    return 1


def children(pid: int) -> list[int]:
    """Return the children of a process."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []


def records(folder: SweepFolder, spec: RunSpec) -> list[dict[str, object]]:
    """Return the records of a run without times and memory."""
    try:
        lines = folder.run(spec.id).records_file.read_text().splitlines()
    except OSError:
        return []
    return [{key: value for key, value in json.loads(line).items() if key not in VOLATILE} for line in lines]


if __name__ == "__main__":
    sys.exit(main())
