#!/usr/bin/env python3
"""First contact with a GPU: is training right, how fast is it, what stands in its way. tools/gpu_check.py [--out DIR]

Phases run in the order of their worth, for at most --seconds. Each figure is printed and appended to DIR/figures.jsonl
at once, so a run that is cut off loses only the phases that it has not reached:
  machine     versions, speed of the device, time to build and upload the pixel cache
  smoke       train with --device auto, cuda and cuda:0
  equal       augmentation and three updates of four algorithms, against the CPU in full precision
  loop        training step of ResNet-50 against a bare model and optimizer in the same process
  waits       where the host waits for the device in a step, by file and line
  whole       a whole run, and with --domainbed that of a checkout of DomainBed on the same images
  resume      a run that is stopped and resumed, against one that is not: equal to the bit
  evaluation  images per second, eager and compiled
  algorithms  two updates of every algorithm, alone and with BF, SWAD and MixStyle
  added       time that BatchFormer and SWAD add to an update
  loop18      as loop, of ResNet-18
  several     one, two and four runs at once
  compiled    compiled training, with CUDA graphs for small batches: against eager training, its time, and what BF
              adds to it
  whole18     as whole, of ResNet-18
--cpu rehearses all of it on a CPU with small images and networks; its times mean nothing. Exits with 1 if a phase
fails or a figure is wrong: a command that does not end well, results that differ by more than they should.
"""

import argparse
import gc
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import product
from math import nan
from pathlib import Path
from typing import Any

import torch
import torchvision
from bench_train import make_images
from torch import Tensor, nn
from torch.nn import functional as F

from dg_batchformer.algorithms import ALGORITHMS, Algorithm, get_algorithm_class
from dg_batchformer.algorithms.base import TrainingSet
from dg_batchformer.catalog.datasets import dataset_facts
from dg_batchformer.datasets import get_dataset_class
from dg_batchformer.errors import InputError
from dg_batchformer.hparams_registry import resolve_hparams
from dg_batchformer.runtime.parallel import usable_cores
from dg_batchformer.spec.options import RunOptions
from dg_batchformer.spec.run import RunRequest, RunSpec
from dg_batchformer.storage.folders import RunFolder
from dg_batchformer.training.cached import CachedLoader
from dg_batchformer.training.compute_mode import Execution, apply, gave_up_compiling
from dg_batchformer.training.device import arithmetic, gpu_versions, prepare_device
from dg_batchformer.training.evaluate import Evaluator
from dg_batchformer.training.loop import Means, seed_everything
from dg_batchformer.training.run import train_run
from dg_batchformer.training.run_log import Watcher
from dg_batchformer.training.sampling import Sampler, evaluated_splits, split_environments
from dg_batchformer.training.stop import Interrupted

CPU = torch.device("cpu")
EAGER = Execution("bf16", "cached", "off")
COMPILED = EAGER._replace(compile="on")
FULL = EAGER._replace(precision="fp32")
_MOST_LEVELS = 0.6  # of 256, the mean over pixels: CPUs round resized crops to bytes
_MOST_DIFFERENCE = 0.05
_LONGEST = 150  # seconds of a command, so that a slow one leaves time for the phases after it
# Seconds that must be left to begin a phase.
NEEDS = {
    "machine": 0,
    "smoke": 40,
    "equal": 20,
    "loop": 60,
    "waits": 15,
    "whole": 120,
    "resume": 60,
    "evaluation": 40,
    "algorithms": 40,
    "added": 40,
    "loop18": 40,
    "several": 95,
    "compiled": 60,
    "whole18": 60,
}
TINY = {"backbone": "tiny", "weights": "none", "image_size": 32}


def main() -> None:
    """Run the phases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu_check"), metavar="DIR", help="default: gpu_check")
    parser.add_argument("--data_dir", type=Path, metavar="DIR", help="holds PACS/ (default: generated images)")
    parser.add_argument("--domainbed", type=Path, metavar="DIR", help="a checkout to compare a whole run with")
    parser.add_argument("--seconds", type=float, default=470, metavar="N", help="time limit (default: 470)")
    parser.add_argument("--only", nargs="+", choices=NEEDS, default=list(NEEDS), metavar="PHASE")
    parser.add_argument("--cpu", action="store_true", help="rehearse on a CPU")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)  # a process of ``several``
    options = parser.parse_args()
    device = CPU if options.cpu else torch.device("cuda", 0)
    prepare_device(device)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.worker:
        folder, number, start, seconds = options.worker
        Check(options, device, Path(folder)).train_in_slots(int(number), float(start), float(seconds))
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = str(Path(folder, "cache"))
        sys.exit(Check(options, device, Path(folder)).run())


class Check:
    """The phases, one method each.

    Args:
        options: of the command line.
        device: to check.
        folder: for data, weights and runs.

    """

    def __init__(self, options: argparse.Namespace, device: torch.device, folder: Path) -> None:
        self.options, self.device, self.folder = options, device, folder
        self.began = time.monotonic()
        self.on_gpu = device.type == "cuda"
        self.size, self.rows, self.repeats = (224, 32, 30) if self.on_gpu else (32, 2, 1)
        self.data_dir = options.data_dir or make_images(folder / "data", 48 if self.on_gpu else 10)
        self.loaders: dict[int, CachedLoader] = {}
        self.is_wrong = False

    def run(self) -> int:
        """Run all phases for which there is time; return the exit code."""
        signal.signal(signal.SIGALRM, out_of_time)
        signal.setitimer(signal.ITIMER_REAL, self.left)
        try:
            self.run_phases()
        except OutOfTime:
            self.say("time", "is up", seconds=round(self.options.seconds))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return int(self.is_wrong)

    def run_phases(self) -> None:
        """Run the phases in order."""
        for name in NEEDS:
            if name not in self.options.only:
                continue
            if self.left < NEEDS[name]:
                self.say(name, "left out", seconds_left=round(self.left))
                continue
            began = time.monotonic()
            try:
                getattr(self, name)()
            except Exception as error:
                self.say(name, "FAILED", wrong=True, error=f"{type(error).__name__}: {str(error)[:300]}")
                (self.options.out / f"{name}.txt").write_text(traceback.format_exc())
            self.say(name, "took", seconds=round(time.monotonic() - began, 1))
            gc.collect()
            with suppress(RuntimeError):  # after an illegal access, other processes may still work
                if self.on_gpu:
                    torch.cuda.empty_cache()

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.options.seconds - (time.monotonic() - self.began)

    def say(self, phase: str, what: str, *, wrong: bool = False, **figures: Any) -> None:
        """Print figures, and append them to the file; mark those that are wrong."""
        self.is_wrong |= wrong
        figures |= {"WRONG": True} if wrong else {}
        line = {"phase": phase, "what": what, **figures, "at": round(time.monotonic() - self.began, 1)}
        print(f"[{line['at']:6.1f}] {phase}, {what}: {', '.join(f'{k} {v}' for k, v in figures.items())}", flush=True)
        with (self.options.out / "figures.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    # phases ----------------------------------------------------------------------------------------------------------

    def machine(self) -> None:
        """Describe the machine, and fill the pixel cache."""
        known: dict[str, Any] = {"torch": torch.__version__, "cores": usable_cores(), **gpu_versions(self.device)}
        if self.on_gpu:
            known |= {"gpu": torch.cuda.get_device_name(self.device), **arithmetic(self.device)}
            a = torch.randn(8192, 8192, device=self.device, dtype=torch.bfloat16)
            known["bf16_tflops"] = round(2 * 8192**3 / self.time(lambda: a @ a)[0] / 1e12)
            block = torch.empty(2**30, dtype=torch.uint8, device=self.device)
            known["copy_tb_per_s"] = round(2 * 2**30 / self.time(block.clone)[0] / 1e12, 2)
            few = torch.zeros(8, device=self.device)
            known["launch_us"] = round(1e6 * self.time(lambda: few.add_(1))[1], 2)
        self.say("machine", "is", **known)
        began = time.perf_counter()
        self.loader(self.size)
        self.synchronise()
        self.say("machine", "builds and uploads the pixel cache", seconds=round(time.perf_counter() - began, 1))

    def smoke(self) -> None:
        """Train for three steps on the device, under each of its names."""
        for name in dict.fromkeys(("auto", self.device.type, str(self.device))):
            asked = ["--protocol", "quick", "--test_envs", "3", "--steps", "3", "--device", name]
            done = self.train_process(f"smoke-{name}", *asked)
            said = {"status": done.returncode, "said": last_line(done.stderr)}
            self.say("smoke", f"train --device {name}", wrong=done.returncode != 0, **said)

    def equal(self) -> None:
        """Compare augmentation and updates with the CPU, in full precision."""
        spec = self.spec("ERM", rows=8)
        on_cpu = Trained(self, spec, loader=self.open_loader(self.size, CPU), device=CPU).images()
        for title, execution in (("augmented images", EAGER), ("augmented images, compiled", COMPILED)):
            run = Trained(self, spec, execution)
            far = (run.images() - on_cpu).abs() * 255 * 0.225
            wrong = not float(far.mean()) <= _MOST_LEVELS or run.loader.compiles != run.compiles
            figures = {"mean": f"{far.mean():.3f}", "largest": f"{far.max():.2f}"}
            self.say("equal", f"{title}, in 256 levels", wrong=wrong, **figures)
        for name in ("ERM", "CORAL", "IRM", "SWAD+BF"):
            no_dropout = {"bf_dropout": 0.0} if "BF" in name else {}
            spec = self.spec(name, "resnet18", rows=4, image_size=min(64, self.size), **no_dropout)
            far = self.difference(spec, (CPU, FULL), (self.device, FULL))
            figures = {"largest_relative_difference": f"{far:.1e}"}
            self.say("equal", f"{name}, three updates in fp32", wrong=not far <= _MOST_DIFFERENCE, **figures)

    def difference(self, spec: RunSpec, *ways: tuple[torch.device, Execution]) -> float:
        """Update in two ways from equal weights; return the largest difference, relative to the change of a weight.

        Returns NaN if compilation failed.
        """
        first, states = get_algorithm(spec, self.num_classes).state_dict(), []
        for device, execution in ways:
            algorithm = get_algorithm(spec, self.num_classes)
            algorithm.load_state_dict(first)
            algorithm.to(device)
            apply(execution, algorithm, device, 3 * resolve_hparams(spec)["batch_size"])
            for step in range(3):
                algorithm.update(random_minibatches(spec, self.num_classes, device, seed=step))
            if gave_up_compiling(execution, algorithm):
                return nan
            states.append({key: value.cpu().double() for key, value in algorithm.state_dict().items()})
        changes = {key: (states[0][key] - first[key].double()).norm() for key in first}
        kept = [key for key in first if not changes[key] <= 1e-6]  # keeps NaN, which max of a tensor passes on
        return float(torch.stack([(states[1][key] - states[0][key]).norm() / changes[key] for key in kept]).max())

    def loop(self) -> None:
        """Compare a training step with a bare model and optimizer."""
        self.compare_with_floor("loop", "resnet50" if self.on_gpu else "resnet18")

    def loop18(self) -> None:
        """As ``loop``, of ResNet-18."""
        self.compare_with_floor("loop18", "resnet18")

    def compare_with_floor(self, phase: str, backbone: str) -> None:
        """Time the parts of a step, and a bare model, in turns."""
        run, floor = Trained(self, self.spec("ERM", backbone)), Floor(backbone, self)
        parts = {"bare model": floor.step, "step": run.step, "update": run.update, "data": run.load}
        timed = self.in_turns(parts)
        for name, (seconds, host) in timed.items():
            figures = {"ms": round(1e3 * seconds, 2), "host_ms": round(1e3 * host, 2)}
            figures |= self.kernels(parts[name])
            self.say(phase, f"{backbone}, {name}", **figures, images_per_s=round(3 * self.rows / seconds))
        share = timed["bare model"][0] / timed["step"][0]
        self.say(phase, f"{backbone}, speed of a step relative to the bare model", share=f"{share:.1%}")
        if self.on_gpu:
            self.say(phase, "memory", peak_gib=round(torch.cuda.max_memory_allocated(self.device) / 2**30, 2))

    def waits(self) -> None:
        """Report where the host waits for the device."""
        for name in ("ERM", "MixStyle", "SWAD+BF"):
            run = Trained(self, self.spec(name, "resnet18"))
            run.step()
            with self.watched() as places:
                run.step()
                run.step()
            figures = {"count": sum(places.values()) / 2, "where": dict(places.most_common(6))}
            self.say("waits", f"{name}, a step", wrong=bool(places), **figures)

    def whole(self) -> None:
        """Time a whole run, and DomainBed's."""
        self.compare_with_domainbed("whole", "resnet50" if self.on_gpu else "resnet18")

    def whole18(self) -> None:
        """As ``whole``, of ResNet-18."""
        self.compare_with_domainbed("whole18", "resnet18")

    def compare_with_domainbed(self, phase: str, backbone: str) -> None:
        """Time a whole run, and DomainBed's if there is a checkout."""
        steps = "201" if self.on_gpu else "3"
        hparams = {"backbone": backbone, "weights": self.weights(backbone), "freeze_bn": True, "batch_size": self.rows}
        hparams |= {} if self.on_gpu else {"image_size": 32}
        asked = ["--dataset", "PACS", "--data_dir", str(self.data_dir), "--test_envs", "3", "--steps", steps]
        asked += ["--checkpoint_freq", steps]
        ours = ["--protocol", "domainbed-2020", "--evaluate", "all", "--keep", "none", "--device", str(self.device)]
        ours += ["--hparams", json.dumps(hparams)]
        for precision in ("auto", "fp32") if self.on_gpu else ("auto",):
            began = time.perf_counter()
            done = self.train_process(f"{phase}-{precision}", *asked, *ours, "--precision", precision)
            seconds, status = round(time.perf_counter() - began, 1), done.returncode
            said = last_line(done.stderr)
            self.say(phase, precision, wrong=status != 0, seconds=seconds, status=status, said=said)
        if self.options.domainbed is None:
            return
        theirs = {"resnet18": backbone == "resnet18", "resnet50_augmix": False, "batch_size": self.rows}
        tool = Path(__file__).with_name("domainbed_script.py")
        command = [sys.executable, str(tool), str(self.options.domainbed), "train", "--", *asked, "--skip_model_save"]
        command += ["--hparams", json.dumps({**theirs, "freeze_bn": True})]
        command += ["--output_dir", str(self.folder / f"{phase}-domainbed")]
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, timeout=max(10, self.left))
        seconds = round(time.perf_counter() - began, 1)
        wrong = done.returncode != 0
        self.say(phase, "DomainBed", wrong=wrong, seconds=seconds, status=done.returncode, said=last_line(done.stderr))

    def resume(self) -> None:
        """Compare a run that is stopped and resumed with one that is not, and with a repeated one."""
        names = ("SWAD+BF", "MLDG", "DANN+BF", "MixStyle+SAM", "Fishr") if self.on_gpu else ("SWAD+BF",)
        for name, compiles in [*((name, "off") for name in names), *([("BF", "on")] if self.on_gpu else [])]:
            if self.left < 60:
                self.say("resume", f"{name}, compile {compiles}", left_out=f"{self.left:.0f} s left")
                continue
            small: dict[str, Any] = {**TINY, "batch_size": 8}
            if self.on_gpu:
                small |= {"backbone": "resnet18", "image_size": 64, "freeze_bn": False}
            steps: dict[str, Any] = {"steps": 9, "checkpoint_freq": 4, "compile": compiles, "data_path": "cached"}
            spec = RunRequest("PACS", name, (3,), protocol="swad-2021", hparams=small, **steps).resolve()
            stops = iter([False] * 5 + [True])
            models = [self.model(spec, f"{name}-{turn}") for turn in ("whole", "again")]
            with suppress(Interrupted):
                self.model(spec, f"{name}-cut", lambda stops=stops: next(stops))
            torch._dynamo.reset()  # as in a new process, which compiles for the sizes that it meets first
            models.append(self.model(spec, f"{name}-cut"))
            far = [
                float(torch.stack([(model[k] - models[0][k]).double().abs().max() for k in model]).max())
                for model in models[1:]
            ]
            figures = {"repeated_differs_by": far[0], "resumed_differs_by": far[1]}
            self.say("resume", f"{name}, compile {compiles}", wrong=far != [0.0, 0.0], **figures)

    def model(self, spec: RunSpec, folder: str, stop: Callable[[], bool] = lambda: False) -> dict[str, Tensor]:
        """Train a run; return the weights of its model."""
        run, options = RunFolder(self.folder / "runs" / folder), RunOptions(self.data_dir, keep="final")
        train_run(spec, run, options, device=self.device, watcher=Watcher(), stop=stop)
        return torch.load(run.model_file, weights_only=True, map_location="cpu")["predictor"]

    def evaluation(self) -> None:
        """Time the evaluation."""
        modes = {"eager": EAGER, "compiled": EAGER._replace(compile="on")} if self.on_gpu else {"eager": EAGER}
        for backbone, (how, execution) in product(("resnet50", "resnet18")[not self.on_gpu :], modes.items()):
            run = Trained(self, self.spec("ERM", backbone), execution)
            images = sum(map(len, run.evaluator.splits.values()))
            began = time.perf_counter()
            run.evaluate()
            first = time.perf_counter() - began
            seconds, _ = self.time(run.evaluate, 3)
            figures = {"images_per_s": round(images / seconds), "first_seconds": round(first, 1)}
            self.say("evaluation", f"{backbone}, {how}", **figures)

    def algorithms(self) -> None:
        """Update every algorithm twice, alone and wrapped."""
        names = [name for name in ALGORITHMS if ALGORITHMS[name].trains][: None if self.on_gpu else 4]
        worked, refused, failed, places = 0, 0, dict[str, str](), Counter[str]()
        for name, shape in product(names, ("{}", "{}+BF", "SWAD+{}", "MixStyle+{}")):
            full = shape.format(name)
            if self.left < 30:
                self.say("algorithms", f"{full} and those after it", left_out=f"{self.left:.0f} s left")
                break
            try:
                hparams = {**TINY, "batch_size": 6}
                spec = RunRequest("PACS", full, (3,), protocol="swad-2021", hparams=hparams).resolve()
                algorithm = get_algorithm(spec, self.num_classes).to(self.device)
                apply(EAGER, algorithm, self.device, 18)
                algorithm.update(random_minibatches(spec, self.num_classes, self.device, seed=0))
                batches = random_minibatches(spec, self.num_classes, self.device, seed=1)
                with self.watched() as waits:
                    metrics = algorithm.update(batches)
                places.update({f"{full} {place}": count for place, count in waits.items()})
                assert all(torch.as_tensor(value).isfinite().all() for value in metrics.values()), "not finite"
                worked += 1
            except InputError:  # a pair that makes no sense
                refused += 1
            except Exception as error:
                failed[full] = f"{type(error).__name__}: {str(error)[:120]}"
        figures = {"worked": worked, "refused": refused, "failed": failed, "waits": dict(places.most_common(12))}
        self.say("algorithms", "two updates", **figures)
        assert not failed, f"{len(failed)} algorithms fail"

    def added(self) -> None:
        """Time what wrappers add to an update."""
        for backbone in ("resnet50", "resnet18")[not self.on_gpu :]:
            self.compare_with_erm("added", backbone, ("ERM", "BF", "SWAD", "SWAD+BF"), EAGER)

    def compare_with_erm(self, phase: str, backbone: str, names: Sequence[str], execution: Execution) -> None:
        """Time updates in turns, and say what they take over the first of them, ERM's."""
        runs = {name: Trained(self, self.spec(name, backbone), execution) for name in names}
        timed = self.in_turns({name: run.update for name, run in runs.items()})
        for name, (seconds, host) in timed.items():
            over = f"{seconds / timed['ERM'][0] - 1:+.1%}"
            figures = {"ms": round(1e3 * seconds, 2), "host_ms": round(1e3 * host, 2), "over_erm": over}
            self.say(phase, f"{backbone}, {name}, update", **figures)

    def several(self) -> None:
        """Train one, two and four runs at once, in processes that take turns by the clock."""
        count, wait, seconds = (4, 30, 8) if self.on_gpu else (2, 25, 1)
        command = [sys.executable, __file__, "--out", str(self.options.out), "--data_dir", str(self.data_dir)]
        command += [*(["--cpu"] if self.options.cpu else []), "--worker", str(self.folder)]
        start = str(time.time() + wait)
        workers = [
            subprocess.Popen([*command, str(number), start, str(seconds)], stdout=subprocess.PIPE, text=True)
            for number in range(count)
        ]
        try:
            said = [json.loads(worker.communicate(timeout=wait + 60)[0].splitlines()[-1]) for worker in workers]
        finally:
            for worker in workers:
                worker.kill()
        for key in said[0]:
            speeds = [one[key] for one in said if key in one]
            self.say("several", key, images_per_s=round(sum(speeds)), each=[round(speed) for speed in speeds])

    def train_in_slots(self, number: int, start: float, seconds: float) -> None:
        """Train in the time slots of more than ``number`` runs at once, and print the speeds."""
        speeds = {}
        backbones = ("resnet18", "resnet50") if self.on_gpu else ("resnet18",)
        runs = {backbone: Trained(self, self.spec("ERM", backbone)) for backbone in backbones}
        for run in runs.values():
            run.step()
        for backbone, at_once in product(backbones, (1, 2, 4) if self.on_gpu else (1, 2)):
            time.sleep(max(0, start - time.time()))
            began, start = time.time(), start + seconds
            if number < at_once:
                steps = 0
                while time.time() < start - 0.1 * seconds:
                    runs[backbone].step()
                    steps += 1
                self.synchronise()
                speeds[f"{backbone}, {at_once} at once"] = steps * 3 * self.rows / (time.time() - began)
        print(json.dumps(speeds), flush=True)

    def left_by_a_run(self) -> int:
        """Train a few compiled updates with CUDA graphs; return the MiB that this process still reserves afterwards."""
        run = Trained(self, self.spec("ERM", "resnet18", rows=8), COMPILED)
        for _ in range(4):
            run.step()
        self.synchronise()
        del run
        gc.collect()
        torch.cuda.empty_cache()
        return torch.cuda.memory_reserved(self.device) >> 20

    def compiled(self) -> None:
        """Time compiled training, and CUDA graphs of small batches."""
        if not self.on_gpu:
            self.say("compiled", "left out", reason="compiled training is for GPUs")
            return
        for name in ("ERM", "ANDMask", "ANDMask+BF"):  # ANDMask's gradients outlive a replay; +BF, graphs live on
            spec = self.spec(name, "resnet18", rows=4, image_size=64)
            far = self.difference(spec, (self.device, FULL), (self.device, FULL._replace(compile="on")))
            figures = {"largest_relative_difference": f"{far:.1e}"}
            self.say("compiled", f"{name}, three updates in fp32", wrong=not far <= _MOST_DIFFERENCE, **figures)
        self.say("compiled", "memory that stays after each of three runs", mib=[self.left_by_a_run() for _ in range(3)])
        for backbone in ("resnet50", "resnet18"):
            self.compare_with_erm("compiled", backbone, ("ERM", "BF"), COMPILED)
        cases = [("ERM", 32), ("ERM", 8), ("SWAD+BF", 32), ("ANDMask", 8), ("SAM", 8), ("MLDG", 8), ("DANN+BF", 8)]
        for (name, rows), backbone in product(cases, ("resnet50", "resnet18")):
            if backbone == "resnet50" and rows < self.rows:
                continue
            if self.left < 45:
                self.say("compiled", f"{name}, {backbone}, 3 x {rows}", left_out=f"{self.left:.0f} s left")
                continue
            spec = self.spec(name, backbone, rows=rows)
            began = time.perf_counter()
            run = Trained(self, spec, COMPILED)
            for _ in range(4):
                run.step()
            self.synchronise()
            first = time.perf_counter() - began
            timed = self.in_turns({"compiled": run.step, "eager": Trained(self, spec).step})
            figures = {f"{how}_ms": round(1e3 * seconds, 2) for how, (seconds, _) in timed.items()}
            self.say("compiled", f"{name}, {backbone}, 3 x {rows}", **figures, first_seconds=round(first, 1))

    # time ------------------------------------------------------------------------------------------------------------

    def synchronise(self) -> None:
        """Wait for the device."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def time(self, call: Callable[[], object], repeats: int | None = None) -> tuple[float, float]:
        """Return the seconds of a call, and those after which the host has launched it, as means of several."""
        repeats = repeats or self.repeats
        call()
        self.synchronise()
        began = time.perf_counter()
        for _ in range(repeats):
            call()
        launched = time.perf_counter()
        self.synchronise()
        return (time.perf_counter() - began) / repeats, (launched - began) / repeats

    def in_turns(self, calls: dict[str, Callable[[], object]]) -> dict[str, tuple[float, float]]:
        """Time calls alternately; return the medians of ``time`` over three rounds."""
        rounds = [{name: self.time(call) for name, call in calls.items()} for _ in range(3 if self.on_gpu else 1)]
        return {
            name: (statistics.median(turn[name][0] for turn in rounds), min(turn[name][1] for turn in rounds))
            for name in calls
        }

    def kernels(self, call: Callable[[], object]) -> dict[str, float]:
        """Return the milliseconds and the number of the kernels and copies of a call; {} on a CPU."""
        if not self.on_gpu:
            return {}
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            call()
            self.synchronise()
        events = [event for event in profiler.events() if "CUDA" in str(event.device_type)]
        return {"kernels_ms": round(sum(event.device_time for event in events) / 1e3, 2), "launches": len(events)}

    @contextmanager
    def watched(self) -> Iterator[Counter[str]]:
        """Count the waits for the device inside the context, by file and line; none are seen on a CPU."""
        places = Counter[str]()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if self.on_gpu:
                torch.cuda.set_sync_debug_mode("warn")
            try:
                yield places
            finally:
                if self.on_gpu:
                    torch.cuda.set_sync_debug_mode("default")
        waits = [warning for warning in caught if "called a synchronizing" in str(warning.message)]
        places.update(f"{Path(warning.filename).name}:{warning.lineno}" for warning in waits)

    # what is checked -------------------------------------------------------------------------------------------------

    @property
    def num_classes(self) -> int:
        """Classes of the data."""
        return dataset_facts("PACS").num_classes

    def spec(self, name: str, backbone: str = "resnet18", rows: int | None = None, **given: Any) -> RunSpec:
        """Return the run to check: PACS with three training environments, and frozen BatchNorm unless given."""
        hparams = {"backbone": backbone, "freeze_bn": True, "batch_size": rows or self.rows, "image_size": self.size}
        hparams |= {"weights": self.weights(backbone), **given}
        return RunRequest("PACS", name, (3,), protocol="swad-2021", hparams=hparams).resolve()

    def weights(self, backbone: str) -> str:
        """Return a file of random weights; freezing BatchNorm asks for weights."""
        file = self.folder / f"{backbone}.pth"
        if not file.exists():
            torch.save(torchvision.models.get_model(backbone, weights=None).state_dict(), file)
        return str(file)

    def loader(self, size: int) -> CachedLoader:
        """Return the pixel cache on the device, which all checks share."""
        if size not in self.loaders:
            self.loaders[size] = self.open_loader(size, self.device)
        return self.loaders[size]

    def open_loader(self, size: int, device: torch.device) -> CachedLoader:
        dataset = get_dataset_class("PACS")(self.data_dir, [3], {"image_size": size})
        return CachedLoader(dataset, device, augments=True, note=print, progress=lambda done, total: None)

    def train_process(self, folder: str, *asked: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dg_batchformer", "train", *asked, "--output_dir", str(self.folder / folder)]
        return subprocess.run(command, capture_output=True, text=True, timeout=max(10, min(self.left, _LONGEST)))


class Trained:
    """The parts of a run, assembled as ``training.run`` does.

    Args:
        check: with the data.
        spec: of the run.
        execution: its compute mode.
        loader: of another device than the check's.
        device: of that loader.

    """

    def __init__(
        self,
        check: Check,
        spec: RunSpec,
        execution: Execution = EAGER,
        loader: CachedLoader | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.device, hparams = device or check.device, resolve_hparams(spec)
        self.loader, self.compiles = loader or check.loader(hparams["image_size"]), execution.compile == "on"
        dataset = get_dataset_class("PACS")(check.data_dir, [3], hparams)
        splits = split_environments(spec, dataset)
        seed_everything(0)
        self.algorithm = get_algorithm(spec, dataset.num_classes).to(self.device)
        apply(execution, self.algorithm, self.device, 3 * hparams["batch_size"])
        self.batches = Sampler(spec, hparams, dataset, splits).minibatches(self.loader, 0, self.device)
        self.evaluator = Evaluator(spec, self.loader, evaluated_splits(spec, splits), self.device)
        self.means = Means()
        self.loaded = self.load()

    def load(self) -> list[tuple[Tensor, Tensor]]:
        """Load the minibatches of a step."""
        self.loader.compiles = self.compiles  # the device's loader is shared
        return next(self.batches)

    def images(self) -> Tensor:
        """Return the images of the first step, on the CPU."""
        return torch.cat([x.cpu() for x, _ in self.loaded])

    def update(self) -> None:
        """Update with the minibatches of the first step."""
        self.means.add(self.algorithm.update(self.loaded))

    def step(self) -> None:
        """Train for a step."""
        seed_everything(1)
        self.means.add(self.algorithm.update(self.load()))

    def evaluate(self) -> None:
        """Evaluate all splits."""
        self.evaluator(self.algorithm, 0)


class Floor:
    """A bare torchvision model with frozen BatchNorm and a fused optimizer, in bf16, on one synthetic batch."""

    def __init__(self, backbone: str, check: Check) -> None:
        self.device = check.device
        self.model = torchvision.models.get_model(backbone, weights=None, num_classes=7)
        self.model.to(self.device, memory_format=torch.channels_last)
        for layer in self.model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eval()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=5e-5, fused=True)
        x = torch.randn(3 * check.rows, 3, check.size, check.size, device=self.device)
        self.x = x.contiguous(memory_format=torch.channels_last)
        self.y = torch.randint(7, (3 * check.rows,), device=self.device)

    def step(self) -> None:
        """Train for a step."""
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, torch.bfloat16):
            logits: Tensor = self.model(self.x)
        F.cross_entropy(logits.float(), self.y).backward()
        self.optimizer.step()


def get_algorithm(spec: RunSpec, num_classes: int) -> Algorithm:
    """Build the algorithm of a run."""
    hparams = resolve_hparams(spec)
    shape = (3, hparams["image_size"], hparams["image_size"])
    algorithm = get_algorithm_class(spec.algorithm)(shape, num_classes, 3, hparams)
    algorithm.prepare(TrainingSet(torch.ones(3, num_classes, dtype=torch.long), spec.steps))
    return algorithm


def random_minibatches(spec: RunSpec, num_classes: int, device: torch.device, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Draw minibatches that are the same on all devices, and seed the update."""
    hparams, generator = resolve_hparams(spec), torch.Generator().manual_seed(seed)
    rows, size = hparams["batch_size"], hparams["image_size"]
    x = [torch.randn(rows, 3, size, size, generator=generator).to(device) for _ in range(3)]
    y = [torch.randint(num_classes, (rows,), generator=generator).to(device) for _ in range(3)]
    seed_everything(seed)
    return list(zip(x, y, strict=True))


class OutOfTime(BaseException):
    """The time limit has passed; not an error of a phase."""


def out_of_time(*received: Any) -> None:
    """Handle the alarm at the time limit."""
    raise OutOfTime


def last_line(text: str) -> str:
    """Return the last line of a program's output."""
    lines: Sequence[str] = text.strip().splitlines() or [""]
    return lines[-1][:160]


if __name__ == "__main__":
    main()
