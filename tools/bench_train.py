#!/usr/bin/env python3
"""Measure the speed of runs: tools/bench_train.py [--domainbed DIR] [--data_dir DIR] [--parts runs loop floor ...]

All compared figures are measured in one call on one machine, alternately if they are short:
  runs   whole processes of ``train`` in every mode: seconds, and memory of the largest process. With --domainbed (a
         checkout of facebookresearch/DomainBed) also DomainBed's train, on the same data, with the same steps,
         evaluations and random weights
  loop   in every mode: images/s of training and evaluation, and the parts of a step: data, forward and backward,
         optimizer
  floor  training in every mode compared with a bare torchvision model and optimizer on one synthetic batch, at the best
         precision, layout and compilation
  added  in every mode: time that BatchFormer and SWAD add to a step
  start  time of a warm worker from the end of one run to the first update of the next
Without --data_dir, 1,344 JPEG files of mixed sizes are made. Results are printed as Markdown.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from dg_batchformer.algorithms import Algorithm, get_algorithm_class
from dg_batchformer.catalog.datasets import dataset_facts
from dg_batchformer.datasets import get_dataset_class
from dg_batchformer.hparams_registry import resolve_hparams
from dg_batchformer.runtime import allocator
from dg_batchformer.runtime.memory import peak_memory
from dg_batchformer.runtime.parallel import usable_cores
from dg_batchformer.spec.manifest import SweepRun
from dg_batchformer.spec.options import RunOptions
from dg_batchformer.spec.run import RunRequest, RunSpec
from dg_batchformer.storage.folders import SweepFolder
from dg_batchformer.sweep.launchers.local import LocalLauncher
from dg_batchformer.training.compute_mode import Work, apply, settle
from dg_batchformer.training.data_path import open_loader, read_features
from dg_batchformer.training.device import parse_device, prepare_device
from dg_batchformer.training.evaluate import Evaluator
from dg_batchformer.training.run_log import Watcher
from dg_batchformer.training.sampling import Sampler, evaluated_splits, split_environments

MODES: dict[str, dict[str, str]] = {
    "reference": {"precision": "fp32", "data_path": "exact", "compile": "off"},
    "fp32": {"precision": "fp32", "data_path": "cached", "compile": "off"},
    "auto": {"precision": "auto", "data_path": "cached", "compile": "auto"},
    "compiled": {"precision": "auto", "data_path": "cached", "compile": "on"},
}
PARTS = ("runs", "loop", "floor", "added", "start")


def main() -> None:
    """Measure the requested parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--domainbed", type=Path, metavar="DIR", help="a checkout to compare whole runs with")
    parser.add_argument("--data_dir", type=Path, metavar="DIR", help="holds PACS/ (default: generated images)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["reference", "fp32", "auto"])
    parser.add_argument("--backbone", choices=("resnet18", "resnet50"), default="resnet18")
    parser.add_argument("--freeze_bn", action="store_true", help="BatchNorm frozen, as in protocols of before 2024")
    parser.add_argument("--batch_size", type=int, default=32, metavar="N", help="of one environment (default: 32)")
    parser.add_argument("--steps", type=int, default=30, metavar="N", help="updates of a whole run (default: 30)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="turns of what is short (default: 5)")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu or cuda:0 (default: auto)")
    options = parser.parse_args()
    allocator.start_over()  # as train does
    device = parse_device(options.device)
    prepare_device(device)
    say_machine(device)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, device, Path(folder))
        for part in options.parts:
            getattr(bench, part)()


def say_machine(device: torch.device) -> None:
    """Print the machine, and whether its load allows to trust figures."""
    cores = usable_cores()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    print(f"{cores} cores, {name}; Python {platform.python_version()}, torch {torch.__version__}, ", end="")
    print(f"torchvision {torchvision.__version__}; {torch.get_num_threads()} threads; ", end="")
    print("tcmalloc" if allocator.is_tcmalloc() else "the C library's allocator", flush=True)
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"WARNING: the load of this machine is {load:.1f}: others use it, or did a minute ago", flush=True)


def cpu_name() -> str:
    """Return the name of the processor."""
    with suppress(FileNotFoundError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
    return platform.processor()


class Timed(NamedTuple):
    """A finished process: seconds, and memory of its largest process in GiB."""

    seconds: float
    memory: float


def run_process(command: Sequence[str], log: Path) -> Timed:
    """Run a command to its end and measure it; exit if it fails."""
    began = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed:\n{log.read_text()[-2000:]}")
    return Timed(time.perf_counter() - began, peak_memory(usage) / 2**30)


class Bench:
    """One configuration, measured in parts."""

    def __init__(self, options: argparse.Namespace, device: torch.device, folder: Path) -> None:
        self.options, self.device, self.folder = options, device, folder
        self.data_dir: Path = options.data_dir or make_images(folder / "data")
        self.hparams = {"backbone": options.backbone, "weights": "none", "freeze_bn": False}
        self.hparams["batch_size"] = options.batch_size
        if options.freeze_bn:
            file = folder / "weights.pth"  # freezing asks for weights; random ones cost the same
            torch.save(torchvision.models.get_model(options.backbone, weights=None).state_dict(), file)
            self.hparams |= {"weights": str(file), "freeze_bn": True}
        self.rows = 3 * options.batch_size
        frozen = ", frozen BatchNorm" * options.freeze_bn
        self.title = f"{options.backbone}{frozen}, {self.rows} images of 224 pixels a step"

    def spec(self, mode: str, algorithm: str = "ERM", **given: Any) -> RunSpec:
        """Return the run that is measured, in a mode."""
        steps = {"steps": self.options.steps, "checkpoint_freq": self.options.steps, "evaluate": "all"}
        fixed = {"dataset": "PACS", "protocol": "domainbed-2020", "test_envs": (3,), "hparams": self.hparams}
        return RunRequest(algorithm=algorithm, **{**fixed, **steps, **MODES[mode], **given}).resolve()

    # runs ------------------------------------------------------------------------------------------------------------

    def runs(self) -> None:
        """Time whole processes."""
        images = sum(len(environment) for environment in self.dataset())
        print(f"\n### Whole runs: {self.title}, {self.options.steps} steps, 2 evaluations of {images} images\n")
        print("| run | seconds | GiB | DomainBed takes |\n|---|---|---|---|")
        self.fill_cache()
        theirs = self.domainbed() if self.options.domainbed else None
        if theirs:
            print(f"| DomainBed | {theirs.seconds:.1f} | {theirs.memory:.2f} | |", flush=True)
        for mode in self.options.modes:
            mine = run_process(self.train_command(mode), self.folder / f"{mode}.log")
            ratio = f"{theirs.seconds / mine.seconds:.2f} x as long" if theirs else ""
            print(f"| {mode} | {mine.seconds:.1f} | {mine.memory:.2f} | {ratio} |", flush=True)

    def train_command(self, mode: str) -> list[str]:
        spec = self.spec(mode)
        asked = {name: getattr(spec, name) for name in ("dataset", "protocol", "steps", "checkpoint_freq", "evaluate")}
        asked |= {**MODES[mode], "hparams": json.dumps(spec.hparams), "data_dir": self.data_dir, "device": self.device}
        asked |= {"test_envs": 3, "keep": "none", "output_dir": self.folder / f"run-{mode}"}
        flags = [text for name, value in asked.items() for text in (f"--{name}", str(value))]
        return [sys.executable, "-m", "dg_batchformer", "train", *flags]

    def domainbed(self) -> Timed:
        """Time DomainBed's train on the same work."""
        named = {"resnet18": self.options.backbone == "resnet18", "resnet50_augmix": False}
        hparams = {**named, "batch_size": self.options.batch_size, "freeze_bn": self.options.freeze_bn}
        steps = str(self.options.steps)
        tool = Path(__file__).with_name("domainbed_script.py")
        command = [sys.executable, str(tool), str(self.options.domainbed), "train", "--"]
        command += ["--dataset", "PACS", "--data_dir", str(self.data_dir), "--test_envs", "3", "--steps", steps]
        command += ["--checkpoint_freq", steps, "--hparams", json.dumps(hparams), "--skip_model_save"]
        command += ["--output_dir", str(self.folder / "domainbed")]
        return run_process(command, self.folder / "domainbed.log")

    # loop, floor, added ----------------------------------------------------------------------------------------------

    def loop(self) -> None:
        """Time the parts of a step, in this process."""
        self.fill_cache()
        for mode in self.options.modes:
            with self.trained(mode, "ERM") as erm:
                data, update, optimizer = (self.time(part) for part in (erm.load, erm.update, erm.step_optimizer))
                evaluation, step = self.time(erm.evaluate), data + update
            shares = (("data", data), ("forward and backward", update - optimizer), ("optimizer", optimizer))
            print(f"\n### Loop, {mode} ({', '.join(erm.execution)}): {self.title}\n")
            print(f"* training {self.rows / step:.1f} images/s, evaluation {erm.evaluated / evaluation:.1f} images/s")
            print(f"* of a step: {', '.join(f'{name} {share / step:.1%}' for name, share in shares)}", flush=True)

    def floor(self) -> None:
        """Compare training with a bare model on the same device."""
        self.fill_cache()
        kinds = [Kind(*kind, compiled=False) for kind in product((torch.float32, torch.bfloat16), (False, True))]
        speeds = {kind: self.speed(kind) for kind in kinds}
        compiled = max(speeds, key=speeds.__getitem__)._replace(compiled=True)
        speeds[compiled] = self.speed(compiled)
        print(f"\n### Floor: {self.title}\n")
        for kind, speed in speeds.items():
            print(f"* {kind}: {speed:.1f} images/s", flush=True)
        best = Floor(self.options, self.rows, self.device, max(speeds, key=speeds.__getitem__))
        for mode in self.options.modes:
            with self.trained(mode, "ERM") as erm:
                median, low, high = self.in_turns(best.step, erm.step)
            reached = f"{median:.1%} of the best of these (turns: {low:.1%} to {high:.1%})"
            print(f"* training, {mode} ({', '.join(erm.execution)}), reaches {reached}", flush=True)

    def speed(self, kind: "Kind") -> float:
        """Return the images/s of a bare model."""
        return self.rows / self.time(Floor(self.options, self.rows, self.device, kind).step, rounds=2)

    def added(self) -> None:
        """Time what wrappers add to a step."""
        self.fill_cache()
        print(f"\n### What wrappers add: {self.title}\n")
        for mode, name in product(self.options.modes, ("BF", "SWAD")):
            with self.trained(mode, "ERM") as erm, self.trained(mode, name) as wrapped:
                median, low, high = (ratio - 1 for ratio in self.in_turns(wrapped.step, erm.step))
                ran = ", ".join(erm.execution)
            print(f"* {name}, {mode} ({ran}): {median:+.1%} (turns: {low:+.1%} to {high:+.1%})", flush=True)

    @contextmanager
    def trained(self, mode: str, name: str) -> Iterator["Trained"]:
        """Assemble what a run trains, as ``training.trajectory`` does."""
        spec = self.spec(mode, name, steps=5001, checkpoint_freq=300)
        dataset = self.dataset()
        with ExitStack() as stack:
            source = stack.enter_context(open_loader(spec, resolve_hparams(spec), dataset, self.device, Watcher()))
            yield Trained(spec, dataset, source, self.device)

    def time(self, part: Callable[[], None], rounds: int | None = None) -> float:
        """Return the median seconds of several calls after a warm-up call."""
        part()
        return statistics.median(self.once(part) for _ in range(rounds or self.options.rounds))

    def in_turns(self, one: Callable[[], None], other: Callable[[], None]) -> "Ratios":
        """Return the ratio of the times of two functions, measured alternately."""
        one(), other()
        ratios = []
        for _ in range(self.options.rounds):
            ratios.append(self.once(one) / self.once(other))
        return Ratios(statistics.median(ratios), min(ratios), max(ratios))

    def once(self, part: Callable[[], None]) -> float:
        began = time.perf_counter()
        part()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - began

    # start -----------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Time a warm worker from one run to the first update of the next."""
        self.fill_cache()
        runs = [SweepRun("ERM", self.spec("auto", trial_seed=trial, steps=2, checkpoint_freq=2)) for trial in range(5)]
        marks = Marks()
        folder, asked = SweepFolder(self.folder / "warm"), RunOptions(self.data_dir)
        launcher = LocalLauncher(folder, [str(self.device)], asked, marks)
        launcher.launch(runs)
        waits = [begin - end for begin, end in zip(marks.begun[1:], marks.over, strict=False)]
        print(f"\n### A further run in a warm worker: {self.options.backbone}\n")
        between = f"{statistics.median(waits):.2f} s ({min(waits):.2f} to {max(waits):.2f})"
        print(f"* {between} from the end of a run to the first update of the next")

    # data ------------------------------------------------------------------------------------------------------------

    def dataset(self) -> Any:
        return get_dataset_class("PACS")(self.data_dir, [3], {"image_size": 224})

    def fill_cache(self) -> None:
        command = [sys.executable, "-m", "dg_batchformer", "data", "cache", "PACS", "--data_dir", str(self.data_dir)]
        run_process(command, self.folder / "cache.log")


class Ratios(NamedTuple):
    """A ratio over several turns."""

    median: float
    low: float
    high: float


class Trained:
    """An algorithm with its data, and the parts of a step."""

    def __init__(self, spec: RunSpec, dataset: Any, source: Any, device: torch.device) -> None:
        hparams, splits = resolve_hparams(spec), split_environments(spec, dataset)
        chosen = evaluated_splits(spec, splits)
        self.algorithm: Algorithm = get_algorithm_class(spec.algorithm)(
            dataset.input_shape, dataset.num_classes, len(spec.train_envs), hparams
        ).to(device)
        if spec.data_path == "features":
            read_features(self.algorithm)
        self.evaluated = sum(map(len, chosen.values()))
        per_step = hparams["batch_size"] * len(spec.train_envs)
        self.execution = settle(spec, dataset, device, Work(per_step, self.evaluated, in_sweep=False))
        apply(self.execution, self.algorithm, device, per_step)
        self.batches = Sampler(spec, hparams, dataset, splits).minibatches(source, 0, device)
        self.evaluator = Evaluator(spec, source, chosen, device)
        self.load()

    def load(self) -> None:
        self.loaded = next(self.batches)

    def update(self) -> None:
        self.algorithm.update(self.loaded)

    def step(self) -> None:
        self.algorithm.update(next(self.batches))

    def step_optimizer(self) -> None:
        self.algorithm.optimizer.step()

    def evaluate(self) -> None:
        self.evaluator(self.algorithm, 0)


class Kind(NamedTuple):
    """Precision, layout and compilation of a bare model."""

    precision: torch.dtype
    channels_last: bool
    compiled: bool

    def __str__(self) -> str:
        layout, way = "NHWC" if self.channels_last else "NCHW", "compiled" if self.compiled else "eager"
        return f"{str(self.precision).removeprefix('torch.')}, {layout}, {way}"


class Floor:
    """A bare model and optimizer on one synthetic batch."""

    def __init__(self, options: argparse.Namespace, rows: int, device: torch.device, kind: Kind) -> None:
        self.precision, self.device = kind.precision, device
        layout = torch.channels_last if kind.channels_last else torch.contiguous_format
        model = torchvision.models.get_model(options.backbone, weights=None, num_classes=7)
        model.to(device, memory_format=layout)
        if options.freeze_bn:
            for layer in model.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.eval()
        self.optimizer = torch.optim.Adam(model.parameters(), lr=5e-5, fused=True)
        self.model = torch.compile(model) if kind.compiled else model
        self.x = torch.randn(rows, 3, 224, 224, device=device).contiguous(memory_format=layout)
        self.y = torch.randint(7, (rows,), device=device)

    def step(self) -> None:
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            logits: Tensor = self.model(self.x)
        F.cross_entropy(logits.float(), self.y).backward()
        self.optimizer.step()


class Marks:
    """A launcher's report that notes when runs begin and end."""

    def __init__(self) -> None:
        self.begun: list[float] = []
        self.over: list[float] = []

    def begin(self, run: SweepRun, start: int) -> None:
        self.begun.append(time.perf_counter())

    def progress(self, run: SweepRun, done: int) -> None: ...

    def ended(self, run: SweepRun, how: str, sentence: str) -> None:
        if how != "done":
            sys.exit(f"a run of the worker is {how}: {sentence}")
        self.over.append(time.perf_counter())

    def note(self, run: SweepRun, sentence: str) -> None: ...


def make_images(folder: Path, per_class: int = 48) -> Path:
    """Write JPEG files of mixed sizes for 4 environments and 7 classes; return the folder."""
    random = np.random.default_rng(0)
    for environment, label, number in product(dataset_facts("PACS").names, range(7), range(per_class)):
        width, height = random.integers(180, 320, size=2)
        coarse = Image.fromarray(random.integers(0, 256, size=(12, 12, 3), dtype=np.uint8))
        file = folder / dataset_facts("PACS").folder / environment / f"class{label}" / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        coarse.resize((int(width), int(height)), Image.Resampling.BICUBIC).save(file, quality=90)
    return folder


if __name__ == "__main__":
    main()
