#!/usr/bin/env python3
"""Test all readers with hostile and broken input: tools/red_team.py [--quick] [--seed 0] [--kind NAME ...]

Trains a tiny sweep, then passes its files, and data, archives, sweep files and weights, to every command that reads
them: replaced with FIFOs and devices, damaged, made up, oversized, full of escape sequences, linked elsewhere, with
code. Prints the number of inputs of each kind, and each that broke something: a traceback, an unexpected error, too
much time or memory, a file written outside, code that ran, an invisible character on the terminal. Exit status 1 if
anything broke. --quick takes a few minutes.
"""

import argparse
import importlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import hostile
import torch
from PIL import Image

from dg_batchformer.cli import main as cli
from dg_batchformer.runtime.memory import peak_memory
from dg_batchformer.text import terminal

PROCESSOR_SECONDS = 30  # the limits of an input
SECONDS = 150.0  # seconds until a command counts as hanging
MEMORY = 1.5 * 2**30
ADDRESSES = 16 * 2**30  # the limit of a child process, to protect the machine
ALLOWED = {0, 1, 2, 141}
PRELOADED = (
    "dg_batchformer.training.run", "dg_batchformer.models.make_soups", "dg_batchformer.explain.write",
    "pyarrow.parquet", "dg_batchformer.explain.pictures", "dg_batchformer.report.page", "dg_batchformer.cli.listing",
    "dg_batchformer.datasets.prepare.build", "dg_batchformer.tables.significance", "dg_batchformer.datasets.verify",
    "pandas", "scipy.stats", "tqdm", "submitit", "yaml",
)  # fmt: skip
SWEEP = """
datasets: [Shapes]
algorithms: [ERM, ERM+BF]
protocol: quick
trials: 1
draws: 2
test_envs: [sketch]
steps: 4
checkpoint_freq: 2
hparams: {backbone: tiny, batch_size: 4, init: linear_probe}
"""


class Case(NamedTuple):
    """An input: ``prepare`` creates it in a copy of the valid files, where ``arguments`` are then run."""

    name: str
    prepare: Callable[[Path], object]
    arguments: str


class Outcome(NamedTuple):
    """The outcome of a command."""

    status: int
    output: str
    seconds: float
    memory: int


def main() -> int:
    """Try inputs of every kind, print what broke, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a share of the inputs, in a few minutes")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of what is drawn (default: 0)")
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=list(KINDS), metavar="NAME",
                        help=f"of {', '.join(KINDS)} (default: all)")  # fmt: skip
    options = parser.parse_args()
    torch.set_num_threads(1)
    for module in PRELOADED:  # once, and not in every process
        importlib.import_module(module)
    broken = 0
    with tempfile.TemporaryDirectory() as place:
        honest = Path(place) / "honest"
        train_honestly(honest)
        for kind in options.kind:
            cases = list(KINDS[kind](random.Random(options.seed), 1 if options.quick else 10))
            ended: Counter[int] = Counter()
            found = [problem for case in cases for problem in try_case(case, honest, Path(place) / "case", ended)]
            broken += len(found)
            refused = f"{ended[0] + ended[1]} read, {ended[2]} refused"
            print(f"{kind}: {len(cases)} tried, {refused}, {len(found)} broken", flush=True)
    return 1 if broken else 0


def try_case(case: Case, honest: Path, place: Path, ended: Counter[int]) -> Iterator[str]:
    """Try an input in a copy of the valid files; print and yield what it broke."""
    shutil.copytree(honest, place, symlinks=True)
    case.prepare(place)
    before = victims(place)
    outcome = attempt(case.arguments.split(), place)
    ended[outcome.status] += 1
    problems = list(judge(outcome, place))
    if victims(place) != before:
        problems.append("wrote outside")
    for problem in problems:
        print(f"  {case.name}: {case.arguments}: {problem}", flush=True)
    shutil.rmtree(place)
    yield from problems


def attempt(arguments: list[str], place: Path) -> Outcome:
    """Run a command in a process of its own, in a folder."""
    log = place / ".output"
    began = time.monotonic()
    pid = os.fork()
    if not pid:
        run_here(arguments, place, log)
    while True:
        ended, status, used = os.wait4(pid, os.WNOHANG)
        if ended:
            break
        if time.monotonic() - began > SECONDS:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            _, status, used = os.wait4(pid, 0)
            break
        time.sleep(0.005)
    code = os.waitstatus_to_exitcode(status)
    text = log.read_text(errors="surrogateescape") if log.exists() else ""
    return Outcome(code, text, time.monotonic() - began, peak_memory(used))


def run_here(arguments: list[str], place: Path, log: Path) -> None:
    """Run a command in this process, as ``python -m dg_batchformer`` does."""
    code = 70
    try:
        os.setsid()
        os.chdir(place)
        os.environ.update(XDG_CACHE_HOME=str(place / "cache"), XDG_CONFIG_HOME=str(place / "config"), HOME=str(place))
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
        resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_SECONDS, 2 * PROCESSOR_SECONDS))
        descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(descriptor, number)
            setattr(sys, name, io.TextIOWrapper(os.fdopen(number, "wb", closefd=False), "utf-8", line_buffering=True))
        terminal.prepare_streams()
        code = cli.main(arguments)
        sys.stdout.flush()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 70
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def judge(outcome: Outcome, place: Path) -> Iterator[str]:
    """Yield the problems with the outcome of a command."""
    if outcome.status in (-signal.SIGKILL, -signal.SIGXCPU):
        yield f"was killed after {outcome.seconds:.0f} s"
    elif outcome.status not in ALLOWED:
        yield f"ended with {outcome.status}"
    if outcome.memory > MEMORY:
        yield f"took {outcome.memory / 2**30:.1f} GB"
    if "Traceback" in outcome.output or "add --debug" in outcome.output:
        yield f"was not foreseen: {' '.join(outcome.output.split())[-300:]!r}"
    if unseen := hostile.UNSEEN.search(outcome.output.replace("\r", "").replace("\x1b[A", "")):
        yield f"printed {unseen[0]!r}"
    if list(place.rglob("ran")):
        yield "ran code"
    for file in (place / "out").glob("**/*"):
        if file.suffix in (".txt", ".tex", ".md", ".csv", ".html", ".json", ".bib") and file.is_file():
            text = file.read_text(errors="surrogateescape")
            if unseen := hostile.UNSEEN.search(text):
                yield f"wrote {unseen[0]!r} to {file.name}"
            if file.suffix == ".tex" and "\\input{/" in text:
                yield f"wrote a command to {file.name}"


def victims(place: Path) -> dict[str, object]:
    """Return the files outside the folders that a command may write to."""
    found: dict[str, object] = {str(path): path.read_bytes() for path in (place / "outside").iterdir()}
    found["beside"] = sorted(path.name for path in place.parent.iterdir())
    return found


def train_honestly(place: Path) -> None:
    """Write the valid files: a sweep, a run, an interrupted run, images, a manifest, weights, a file outside."""
    for name in ("outside", "out", "config", "data/Mine", "data/MNIST/raw"):
        (place / name).mkdir(parents=True)
    (place / "outside" / "victim").write_text("untouched")
    (place / "planted.py").write_text(hostile.CODE)
    (place / "tiny.yaml").write_text(SWEEP)
    for domain, kind in ((domain, kind) for domain in "ab" for kind in ("cat", "dog")):
        (folder := place / "data" / "Mine" / domain / kind).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (40, 30), (number * 40, 80, 120)).save(folder / f"{number}.png")
    rows = [
        f"Mine/{domain}/{kind}/{n}.png,{kind},{domain}" for domain in "ab" for kind in ("cat", "dog") for n in range(6)
    ]
    (place / "data" / "Listed.csv").write_text("\n".join(["path,label,domain", *rows]) + "\n")
    torch.save({"layer.weight": torch.zeros(1)}, place / "weights.pt")
    sweep = "sweep tiny.yaml --devices cpu --keep final --predictions"
    for command in (sweep, f"{TRAIN} --output_dir run --keep final --predictions", "soup results/tiny --device cpu"):
        outcome = attempt(command.split(), place)
        assert outcome.status == 0, outcome.output
    interrupt(place)
    (place / ".output").unlink()


TRAIN = (
    "train --dataset Shapes --algorithm ERM+BF --protocol quick --test_envs sketch --steps 4 --checkpoint_freq 2 "
    '--device cpu --hparams {"backbone":"tiny","batch_size":4}'
)
RESUME = TRAIN.replace("--steps 4 --checkpoint_freq 2", "--steps 60 --checkpoint_freq 5") + " --output_dir stopped"


def interrupt(place: Path) -> None:
    """Train a run that is stopped with a checkpoint."""
    pid = os.fork()
    if not pid:
        run_here(RESUME.split(), place, place / ".output")
    records = place / "stopped" / "results.jsonl"
    while not records.exists():
        time.sleep(0.001)
    os.kill(pid, signal.SIGINT)
    os.waitpid(pid, 0)
    assert (place / "stopped" / "checkpoint.pt").exists()


# Kinds of inputs. Each takes a random generator and a number of cases, and yields the cases.

Cases = Iterator[Case]
S, R = "results/tiny", "run"
OF_SWEEP = (
    f"tables {S} --output out", f"status {S}", f"report {S} --output out/page.html", f"cancel {S}",
    f"compare ERM ERM+BF {S}",
    f"tables {S} --metric balanced", f"tables {S} --format domainbed", f"tables {S}/runs --format domainbed_latex",
    f"soup {S} --device cpu --kind uniform", "sweep tiny.yaml --launcher dry_run",
    f"tables {S} --selection all --format json", f"tables {S}/runs --output out",
)  # fmt: skip
OF_RUN = (
    f"predict {R} data/Mine/a --device cpu", f"explain {R} --output out", f"{TRAIN} --output_dir {R}",
    f"tables {R}", f"status {R}", f"report {R} --output out/page.html",
)  # fmt: skip
OF_DATA = (
    "data info Mine --data_dir data", "data verify Mine --data_dir data", "predict run data/Mine --device cpu",
    f"{TRAIN.replace('Shapes', 'Mine').replace('--test_envs sketch', '')} --data_dir data --output_dir out/run",
    "data cache Mine --data_dir data",
)  # fmt: skip
SWEEP_FILES = ("sweep.json", "states.log", "launches/x", "slurm/jobs.log", "workers.log")
RUN_FILES = (
    "spec.json", "results.jsonl", "done", "error.txt", "lock", "log.txt", "model.pt", "batchformer.pt",
    "predictions.npz", "checkpoint.pt",
)  # fmt: skip


def first_run(place: Path) -> Path:
    return min((place / S / "runs").iterdir())


def first_soup(place: Path) -> Path:
    return min((place / S / "soups").iterdir())


def places(file: str) -> list[tuple[str, Callable[[Path], Path], tuple[str, ...]]]:
    """Return the places of files of a run: name, path, and the commands that read there."""
    return [
        (f"{S}/runs/*/{file}", lambda place: first_run(place) / file, OF_SWEEP),
        (f"{S}/soups/*/{file}", lambda place: first_soup(place) / file, OF_SWEEP[:3]),
        (f"{R}/{file}", lambda place: place / R / file, OF_RUN),
        (f"stopped/{file}", lambda place: place / "stopped" / file, (RESUME,)),
    ]


def special_files(rng: random.Random, much: int) -> Cases:
    """Replace every file that is read with FIFOs, devices, folders and other special files."""
    spots = [(f"{S}/{file}", lambda place, file=file: place / S / file, OF_SWEEP) for file in SWEEP_FILES]
    spots += [spot for file in (*RUN_FILES, "soup.json") for spot in places(file)]
    spots += [
        ("an image", lambda place: place / "data/Mine/a/cat/0.png", OF_DATA),
        ("a manifest", lambda place: place / "data/Listed.csv", ("data info Listed --data_dir data",)),
        ("a sweep file", lambda place: place / "tiny.yaml", ("sweep tiny.yaml --launcher dry_run",)),
        ("settings", lambda place: place / "slurm.yaml",
         ("sweep tiny.yaml --launcher slurm --slurm_file slurm.yaml", )),
        ("weights", lambda place: place / "weights.pt", (
            TRAIN.replace('"tiny"', '"resnet18","weights":"weights.pt"') + " --output_dir out/run",)),
        ("MNIST", lambda place: place / "data/MNIST/raw/train-images-idx3-ubyte.gz",
         ("data info ColoredMNIST --data_dir data",)),
        ("an archive", lambda place: place / "PACS.zip", ("data prepare PACS PACS.zip --data_dir data",)),
        ("a table", lambda place: place / "0.parquet", ("data prepare PACS 0.parquet --data_dir data",)),
        ("annotations", lambda place: place / "x.json", ("data prepare TerraIncognita x.json --data_dir data",)),
    ]  # fmt: skip
    chosen = [(spot, kind, verb) for spot in spots for kind in hostile.SPECIAL for verb in spot[2]]
    for (name, find, _), kind, verb in rng.sample(chosen, min(len(chosen), 120 * much)):
        yield Case(f"{kind} for {name}", lambda place, find=find, kind=kind: hostile.put(find(place), kind), verb)


def damaged_files(rng: random.Random, much: int) -> Cases:
    """Damage the bytes of files."""
    spots = [(f"{S}/{file}", lambda place, file=file: place / S / file, OF_SWEEP) for file in SWEEP_FILES[:2]]
    spots += [spot for file in (*RUN_FILES, "soup.json") for spot in places(file)]
    spots += [
        ("an image", lambda place: place / "data/Mine/a/cat/0.png", OF_DATA),
        ("a manifest", lambda place: place / "data/Listed.csv", ("data info Listed --data_dir data",)),
        ("a sweep file", lambda place: place / "tiny.yaml", ("sweep tiny.yaml --launcher dry_run",)),
    ]
    for _ in range(100 * much):
        name, find, verbs = rng.choice(spots)
        seed = rng.random()
        yield Case(
            f"damage {seed} to {name}", lambda place, find=find, seed=seed: damage(find(place), seed), rng.choice(verbs)
        )


def damage(file: Path, seed: float) -> None:
    if file.is_file():
        file.write_bytes(hostile.damaged(file.read_bytes(), random.Random(seed)))


def made_up_values(rng: random.Random, much: int) -> Cases:
    """Put unexpected values and names into JSON."""
    spots = [(f"{S}/sweep.json", lambda place: place / S / "sweep.json", OF_SWEEP)] * 3
    spots += [spot for file in ("spec.json", "results.jsonl", "results.jsonl", "done") for spot in places(file)]
    spots += [places("soup.json")[1]]
    for _ in range(150 * much):
        name, find, verbs = rng.choice(spots)
        seed = rng.random()
        yield Case(
            f"made-up {seed} in {name}",
            lambda place, find=find, seed=seed: make_up(find(place), seed),
            rng.choice(verbs),
        )


def make_up(file: Path, seed: float) -> None:
    if file.is_file():
        rng = random.Random(seed)
        lines = (
            [json.dumps(hostile.made_up(json.loads(line), rng)) for line in file.read_text().splitlines() or ["{}"]]
            if file.suffix == ".jsonl"
            else [json.dumps(hostile.made_up(json.loads(file.read_text()), rng))]
        )
        file.write_text("\n".join(lines) + "\n")


def texts(rng: random.Random, much: int) -> Cases:
    """Put escape sequences, markup, formulas and commands into all untrusted texts that are shown."""
    keys = {
        "label": ("sweep.json", "soup.json"), "name": ("sweep.json",), "algorithm": ("results.jsonl",),
        "dataset": ("results.jsonl",), "protocol": ("results.jsonl",), "device": ("results.jsonl",),
        "torch": ("results.jsonl",), "dataset_fingerprint": ("results.jsonl",), "host": ("lock", "launches/x"),
        "source": ("sweep.json",), "error": ("error.txt",), "hparams": ("results.jsonl",),
    }  # fmt: skip
    for _ in range(100 * much):
        key = rng.choice(list(keys))
        text = rng.choice(hostile.TEXTS) + rng.choice(("", " ERM"))
        verb = rng.choice((*OF_SWEEP, *OF_RUN[3:], f"tables {S} --expect"))
        yield Case(f"{key} {text[:40]!r}", lambda place, key=key, text=text: plant(place, key, text), verb)


def plant(place: Path, key: str, text: str) -> None:
    """Put a text under a key everywhere, and into error and lock files."""
    for folder in (*(place / S / "runs").iterdir(), place / R):
        if key == "error":
            (folder / "done").unlink()
            (folder / "error.txt").write_bytes(text.encode(errors="surrogatepass"))
        if key == "host":
            (folder / "lock").write_text(json.dumps({"host": text, "pid": text}))
    if key == "host":
        (place / S / "launches").mkdir(exist_ok=True)
        (place / S / "launches" / "x").write_text(json.dumps({"host": text, "pid": 1}))
    files = [*(place / S).rglob("sweep.json"), *(place / S).rglob("soup.json"), *place.rglob("results.jsonl")]
    for file in files:
        lines = (
            [renamed(json.loads(line), key, text) for line in file.read_text().splitlines()]
            if file.suffix == ".jsonl"
            else [renamed(json.loads(file.read_text()), key, text)]
        )
        if key == "source" and file.name == "sweep.json":
            lines[0]["declared"]["expected"] = {"source": text, "Shapes": {"ERM+BF": 50.0}}
        file.write_text("\n".join(map(json.dumps, lines)) + "\n")


def renamed(value: object, key: str, text: str) -> dict:
    """Return JSON with all texts under a key, and the names of rows, replaced."""
    if isinstance(value, dict):
        return {
            name: text if name == key and isinstance(old, str) else renamed(old, key, text)
            for name, old in value.items()
        }
    if isinstance(value, list):
        return [text if key == "label" and item == "ERM+BF" else renamed(item, key, text) for item in value]  # type: ignore[return-value]
    return value  # type: ignore[return-value]


def bombs(rng: random.Random, much: int) -> Cases:
    """Yield archives, predictions, tensors, images, sweep files and manifests that are bombs or contain code."""
    for name, write in hostile.ARCHIVES.items():
        yield Case(
            name, lambda place, write=write: write(place / "PACS.zip"), "data prepare PACS PACS.zip --data_dir data"
        )
    for name, write in hostile.PREDICTIONS.items():
        yield Case(
            name,
            lambda place, write=write: write(first_run(place) / "predictions.npz"),
            f"tables {S} --metric balanced",
        )
    for name, write in hostile.TENSORS.items():
        for file, verb in (
            ("run/model.pt", OF_RUN[0]),
            ("run/batchformer.pt", OF_RUN[1]),
            ("stopped/checkpoint.pt", RESUME),
        ):
            yield Case(f"{name} in {file}", lambda place, write=write, file=file: write(place / file), verb)
    for name, write in hostile.IMAGES.items():
        for verb in OF_DATA if much > 1 else rng.sample(OF_DATA, 2):
            yield Case(name, lambda place, write=write: write(place / "data/Mine/a/cat/0.png"), verb)
    for name, text in hostile.YAMLS.items():
        yield Case(
            name, lambda place, text=text: (place / "tiny.yaml").write_text(text), "sweep tiny.yaml --launcher dry_run"
        )
    for name, content in hostile.MANIFESTS.items():
        for ending in ("csv", "json"):
            yield Case(f"{ending}: {name}", lambda place, content=content, ending=ending: (
                (place / "data/Listed.csv").unlink(), (place / f"data/Listed.{ending}").write_bytes(content)),
                "data info Listed --data_dir data")  # fmt: skip


def links(rng: random.Random, much: int) -> Cases:
    """Replace every file that is written with a link to a file outside."""
    written = [
        *((f"stopped/{file}", RESUME) for file in (*RUN_FILES, "explain")),
        *((f"out/run/{file}", f"{TRAIN} --output_dir out/run") for file in RUN_FILES),
        *((f"{S}/{file}", "sweep tiny.yaml --devices cpu") for file in SWEEP_FILES if much > 1),
        *((f"out/{file}", f"tables {S} --output out") for file in ("tables.txt", "tables.html")),
        ("data/.prepare/PACS/lock", "data prepare PACS PACS.zip --data_dir data"),
        ("out/page.html", f"report {S} --output out/page.html"),
        ("run/explain/summary.txt", "explain run"),
    ]
    for file, verb in written:
        yield Case(f"a link for {file}", lambda place, file=file: link(place / file), verb)


def link(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    outside = next(parent for parent in file.parents if (parent / "outside").is_dir()) / "outside" / "victim"
    file.symlink_to(outside)


def code(rng: random.Random, much: int) -> Cases:
    """Name plug-ins in run folders, and put modules into the working folder."""
    for verb in (*OF_SWEEP[:9], *OF_RUN[:2]):
        yield Case("a plug-in that a folder names", name_plugin, verb)


def name_plugin(place: Path) -> None:
    for file in [*place.rglob("spec.json"), *place.rglob("sweep.json")]:
        file.write_text(file.read_text().replace('"plugins": []', '"plugins": ["planted"]'))
        content = json.loads(file.read_text())
        if file.name == "spec.json":
            file.write_text(json.dumps({**content, "plugins": ["planted"]}))
    for folder in (place, *place.rglob("runs/*")):
        (folder / "planted.py").write_text(hostile.CODE)


KINDS: dict[str, Callable[[random.Random, int], Cases]] = {
    "special": special_files,
    "damaged": damaged_files,
    "made_up": made_up_values,
    "texts": texts,
    "bombs": bombs,
    "links": links,
    "code": code,
}


if __name__ == "__main__":
    sys.exit(main())
