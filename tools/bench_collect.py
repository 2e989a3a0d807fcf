#!/usr/bin/env python3
"""Hold tables against DomainBed's collect_results: tools/bench_collect.py [--domainbed DIR] [--parts same speed large]

  same   made-up sweeps of every kind, with pairs, gaps, ties and NaN, and DomainBed's own fixture: whether the text and
         the LaTeX are the same to the byte; needs --domainbed DIR, a checkout of facebookresearch/DomainBed
  speed  a sweep of 97,200 records: seconds and peak memory of whole processes, first (cold: nothing remembered) and
         again (warm), and of DomainBed's script in the same call
  large  a sweep of a million records: the same, without DomainBed
--record writes what DomainBed prints for the made-up sweeps, for the tests. Figures go to standard output, as Markdown.
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
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from domainbed_sweeps import KINDS, Kind, write_sweep  # noqa: E402

PARTS = ("same", "speed", "large")
RECORDED = ROOT / "tests" / "data" / "domainbed_tables"
SEEDS = range(3)
OURS = (sys.executable, "-m", "dg_batchformer", "tables")


class Done(NamedTuple):
    """A process that ended: its output, seconds, and peak memory in MiB."""

    output: str
    seconds: float
    memory: float


def main() -> None:
    """Compare and measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--domainbed", type=Path, metavar="DIR", help="checkout of facebookresearch/DomainBed")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--record", action="store_true", help="write what DomainBed prints into tests/data")
    options = parser.parse_args()
    if options.domainbed is None and (options.record or "same" in options.parts):
        parser.error("--domainbed DIR is needed to compare: a checkout of facebookresearch/DomainBed")
    for part in options.parts:
        with tempfile.TemporaryDirectory() as path:
            os.environ["XDG_CACHE_HOME"] = f"{path}/cache"  # nothing is remembered from earlier
            {"same": same, "speed": speed, "large": large}[part](Path(path), options)


def same(path: Path, options: argparse.Namespace) -> None:
    """Compare the output of every kind of sweep; exit with status 1 where one differs."""
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
    cold, warm = _measure(path / "sweep", Kind(draws=50, evaluations=18))
    if options.domainbed is not None:
        theirs = _domainbed(options.domainbed, path / "sweep", latex=False)
        print(f"| DomainBed's collect_results | {theirs.seconds:.2f} | {theirs.memory:.0f} |")
        ratios = (
            f"cold {theirs.seconds / cold.seconds:.1f} times, warm {theirs.seconds / warm.seconds:.1f} times as fast"
        )
        print(f"\n{ratios}; output {'same' if theirs.output == cold.output == warm.output else 'DIFFERENT'}")


def large(path: Path, options: argparse.Namespace) -> None:
    """Measure a million records."""
    _measure(path / "sweep", Kind(draws=515, evaluations=18))


def _measure(folder: Path, kind: Kind) -> tuple[Done, Done]:
    records = write_sweep(folder, kind, seed=0)
    command = [*OURS, str(folder), "--format", "domainbed"]
    cold, warm, text = _run(command), _run(command), _run([*OURS, str(folder)])
    print(f"{records} records of {sum(1 for _ in folder.iterdir())} runs, whole processes:\n")
    print("| | seconds | peak memory (MiB) |\n|---|---|---|")
    named = {"tables --format domainbed, cold": cold, "the same, warm": warm, "tables, warm": text}
    for name, done in named.items():
        print(f"| {name} | {done.seconds:.2f} | {done.memory:.0f} |")
    return cold, warm


def _domainbed(checkout: Path, folder: Path, *, latex: bool) -> Done:
    tool = Path(__file__).with_name("domainbed_script.py")
    arguments = ["--input_dir", str(folder), *(["--latex"] if latex else [])]
    return _run([sys.executable, str(tool), str(checkout.resolve()), "collect_results", "--", *arguments])


def _run(command: Sequence[str]) -> Done:
    """Run a process to its end; stop where it fails."""
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
        return Done(output.read().decode(), seconds, usage.ru_maxrss / 1024)


if __name__ == "__main__":
    main()
