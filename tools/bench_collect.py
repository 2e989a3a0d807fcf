#!/usr/bin/env python3
"""Compare tables with DomainBed's collect_results: tools/bench_collect.py [--domainbed DIR] [--parts same speed large]

  same   compares text and LaTeX byte by byte, on made-up sweeps of every kind (with pairs, gaps, ties and NaN) and on
         DomainBed's own fixture; needs --domainbed DIR, a checkout of facebookresearch/DomainBed
  speed  a sweep of 97,200 records: seconds (median of rounds) and peak memory of whole processes, without a cache
         (cold), with it (warm), and of DomainBed's script in the same rounds
  large  a sweep of a million records: the same in one round, without DomainBed
--record writes DomainBed's output for the made-up sweeps, for the tests. Results are printed as Markdown.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from domainbed_sweeps import KINDS, Kind, write_sweep  # noqa: E402

from dg_batchformer.runtime.memory import peak_memory  # noqa: E402

PARTS = ("same", "speed", "large")
RECORDED = ROOT / "tests" / "data" / "domainbed_tables"
SEEDS = range(3)
COLD, WARM, THEIRS = "tables --format domainbed, cold", "the same, warm", "DomainBed's collect_results"
OURS = (sys.executable, "-m", "dg_batchformer", "tables")


class Done(NamedTuple):
    """A finished process: output, seconds, and peak memory in MiB."""

    output: str
    seconds: float
    memory: float


def main() -> None:
    """Run the requested comparisons and measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--domainbed", type=Path, metavar="DIR", help="checkout of facebookresearch/DomainBed")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--record", action="store_true", help="write what DomainBed prints into tests/data")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="turns of speed (default: %(default)s)")
    options = parser.parse_args()
    if options.domainbed is None and (options.record or "same" in options.parts):
        parser.error("--domainbed DIR is needed to compare: a checkout of facebookresearch/DomainBed")
    for part in options.parts:
        with tempfile.TemporaryDirectory() as path:
            os.environ["XDG_CACHE_HOME"] = f"{path}/cache"  # nothing is cached yet
            {"same": same, "speed": speed, "large": large}[part](Path(path), options)


def same(path: Path, options: argparse.Namespace) -> None:
    """Compare the output of every kind of sweep; exit with status 1 if one differs."""
    differing = 0
    for name, folder in _sweeps(path, options.domainbed):
        for latex in (False, True):
            theirs = _domainbed(options.domainbed, folder, latex=latex).output
            ours = _run([*OURS, str(folder), "--format", "domainbed_latex" if latex else "domainbed"]).output
            differing += theirs != ours
            print(f"{name}, {'LaTeX' if latex else 'text'}: {'same' if theirs == ours else 'DIFFERENT'}", flush=True)
            if options.record and name in KINDS:
                RECORDED.mkdir(parents=True, exist_ok=True)
                (RECORDED / f"{name}.{'tex' if latex else 'txt'}").write_text(theirs)
    if differing:
        sys.exit(1)


def _sweeps(path: Path, domainbed: Path) -> Iterator[tuple[str, Path]]:
    fixture = shutil.copytree(
        domainbed / "domainbed" / "misc" / "test_sweep_data", path / "fixture"
    )  # it is written to
    yield "DomainBed's fixture", fixture
    for name, kind in KINDS.items():
        for seed in SEEDS:
            folder = path / f"{name}{seed}"
            write_sweep(folder, kind, seed)
            yield name if seed == 0 else f"{name}, seed {seed}", folder


def speed(path: Path, options: argparse.Namespace) -> None:
    """Measure 5,400 runs of 18 records."""
    _measure(path / "sweep", Kind(draws=50, evaluations=18), options.rounds, options.domainbed)


def large(path: Path, options: argparse.Namespace) -> None:
    """Measure a million records."""
    _measure(path / "sweep", Kind(draws=515, evaluations=18), rounds=1, domainbed=None)


def _measure(folder: Path, kind: Kind, rounds: int, domainbed: Path | None) -> None:
    records = write_sweep(folder, kind, seed=0)
    runs = sum(1 for _ in folder.iterdir())
    turns = [_turn(folder, domainbed) for _ in range(rounds)]
    print(f"{records} records of {runs} runs, whole processes, {rounds} turns:\n")
    print("| | seconds | peak memory (MiB) | DomainBed takes |\n|---|---|---|---|")
    for name in turns[0]:
        seconds = median(turn[name].seconds for turn in turns)
        memory = max(turn[name].memory for turn in turns)
        print(f"| {name} | {seconds:.2f} | {memory:.0f} | {_ratios(turns, name) if domainbed else ''} |")
    if domainbed:
        outputs = {turn[name].output for turn in turns for name in (COLD, WARM, THEIRS)}
        print(f"\noutput {'same' if len(outputs) == 1 else 'DIFFERENT'}")


def _turn(folder: Path, domainbed: Path | None) -> dict[str, Done]:
    shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)
    command = [*OURS, str(folder), "--format", "domainbed"]
    done = {COLD: _run(command), WARM: _run(command), "tables, warm": _run([*OURS, str(folder)])}
    return done | ({THEIRS: _domainbed(domainbed, folder, latex=False)} if domainbed else {})


def _ratios(turns: Sequence[dict[str, Done]], name: str) -> str:
    ratios = sorted(turn[THEIRS].seconds / turn[name].seconds for turn in turns)
    return f"{median(ratios):.1f} x as long ({ratios[0]:.1f} to {ratios[-1]:.1f})"


def _domainbed(checkout: Path, folder: Path, *, latex: bool) -> Done:
    tool = Path(__file__).with_name("domainbed_script.py")
    arguments = ["--input_dir", str(folder), *(["--latex"] if latex else [])]
    return _run([sys.executable, str(tool), str(checkout.resolve()), "collect_results", "--", *arguments])


def _run(command: Sequence[str]) -> Done:
    """Run a process to its end; exit if it fails."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=output, stderr=errors, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        if process.returncode != 0:
            sys.exit(f"{' '.join(command)} failed:\n{errors.read().decode()}")
        return Done(output.read().decode(), seconds, peak_memory(usage) / 2**20)


if __name__ == "__main__":
    main()
