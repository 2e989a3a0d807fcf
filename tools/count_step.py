#!/usr/bin/env python3
"""Count what a training step asks of a GPU, on a machine without one: tools/count_step.py [ALGORITHM ...]

Per step of the data path and of the update, and per batch of the evaluation:
  launches  operations on the device other than views and allocations; on a GPU, each launches at least one kernel
  copies    tensors copied from the host to the device
  waits     copies and reads of values for which the host waits until the device has finished all earlier work
PyTorch's meta device, which computes nothing, stands in for the GPU. Launches of the update are counted on the
CPU, where networks run in bf16 and optimizers are fused, with few and small images, on which they do not depend.
BatchNorm is frozen. Also prints the CPU time in which the host prepares and launches the data of a step: the median
of steps whose operations run on the CPU, with images of a few pixels, so that little of it is computing.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dg_batchformer.algorithms import Algorithm, get_algorithm_class
from dg_batchformer.algorithms.base import TrainingSet
from dg_batchformer.catalog.datasets import dataset_facts
from dg_batchformer.datasets import get_dataset_class
from dg_batchformer.hparams_registry import resolve_hparams
from dg_batchformer.networks import resnet
from dg_batchformer.optim import recipe
from dg_batchformer.spec.run import RunRequest
from dg_batchformer.training.cached import CachedLoader
from dg_batchformer.training.compute_mode import Execution, apply
from dg_batchformer.training.evaluate import Evaluator
from dg_batchformer.training.loop import seed_everything
from dg_batchformer.training.sampling import Sampler, evaluated_splits, split_environments

META, CPU = torch.device("meta"), torch.device("cpu")
_SIZE, _ROWS = 32, 4  # pixels, and images per environment in updates: their counts depend on neither
_TINY = 8  # pixels, where times of the host are measured
_STEPS = 50
_ALLOCATIONS = ("empty", "new_empty", "detach", "alias", "resize_", "set_")
# The meta device cannot draw from Beta distributions otherwise.
torch.library.register_fake("aten::_sample_dirichlet", lambda alpha, generator=None: torch.empty_like(alpha))
_READS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "bincount", "masked_select", "_unique2")


class Counts(NamedTuple):
    """Counts of a call; see the module."""

    launches: int
    copies: int
    waits: int


class Counter(TorchDispatchMode):
    """Counts the operations on a device inside the context, in this thread and its backward passes."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.launches = self.copies = self.waits = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        results = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        given, made = (self._devices(values) for values in ((args, kwargs), results))
        arrives = name in ("_to_copy", "copy_", "lift_fresh") and self.device.type != "cpu" and made == {self.device}
        if arrives and (given == {CPU, self.device} or given == {CPU} or name == "lift_fresh"):
            self.copies += 1
            self.waits += not ((kwargs or {}).get("non_blocking") or (len(args) > 2 and args[2]))
        elif self.device in given | made:
            self.waits += name in _READS
            self.launches += not (function.is_view or name.startswith(_ALLOCATIONS) or name == "lift_fresh")
        return results

    @property
    def counts(self) -> Counts:
        """The counts so far."""
        return Counts(self.launches, self.copies, self.waits)

    @staticmethod
    def _devices(values: Any) -> set[torch.device]:
        return {value.device for value in tree_leaves(values) if isinstance(value, Tensor)}


def count(call: Callable[[], object], device: torch.device) -> Counts:
    """Count a call, after another one that may set up."""
    call()
    with Counter(device) as counter:
        call()
    return counter.counts


class Step:
    """The parts of a training step of a run with three training environments.

    Args:
        algorithm: its name.
        backbone: ``resnet18`` or ``resnet50``.
        batch_size: images per environment.
        folder: for images, weights and the pixel cache.
        size: of images, in pixels.

    """

    def __init__(self, algorithm: str, backbone: str, batch_size: int, folder: Path, size: int = _SIZE) -> None:
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        hparams = {"backbone": backbone, "weights": str(weights_file(backbone, folder)), "freeze_bn": True}
        hparams |= {"image_size": size, "batch_size": batch_size}
        self.spec = RunRequest("PACS", algorithm, (3,), protocol="swad-2021", hparams=hparams).resolve()
        self.hparams = resolve_hparams(self.spec)
        self.dataset = get_dataset_class("PACS")(images_folder(folder, size), [3], self.hparams)
        self.splits = split_environments(self.spec, self.dataset)

    def algorithm(self, precision: str) -> Algorithm:
        """Build the algorithm."""
        shape, classes = self.dataset.input_shape, self.dataset.num_classes
        algorithm = get_algorithm_class(self.spec.algorithm)(shape, classes, 3, self.hparams)
        algorithm.prepare(TrainingSet(torch.ones(3, classes), self.spec.steps))
        apply(Execution(precision, "cached", "off"), algorithm, CPU, 3 * self.hparams["batch_size"])
        return algorithm

    def loader(self, resident: bool, device: torch.device = META) -> CachedLoader:
        """Open the pixel cache, on the device or in its files."""
        loader = CachedLoader(self.dataset, device, augments=True, note=print, progress=lambda done, total: None)
        for plane in loader.planes:
            plane.resident = None
            if resident:
                plane.copy_to(device)
        return loader

    def minibatches(self, loader: CachedLoader) -> Iterator[Any]:
        """Yield the minibatches of steps, loaded as for a GPU."""
        loader.stream = loader._on_gpu  # type: ignore[assignment,method-assign]
        return Sampler(self.spec, self.hparams, self.dataset, self.splits).minibatches(loader, 0, loader.device)

    def data(self, resident: bool = True) -> Counts:
        """Count the minibatches of a step."""
        with self.loader(resident) as loader:
            batches = self.minibatches(loader)
            return count(lambda: next(batches), META)

    def host_seconds(self) -> tuple[float, float]:
        """Measure the CPU time of the data of a step, in the thread that trains and in the one that prepares."""
        torch.set_num_threads(1)
        trains: list[float] = []
        prepares: list[float] = []

        def timed(call: Callable[..., Any], taken: list[float]) -> Callable[..., Any]:
            def run(*given: Any) -> Any:
                began = time.thread_time()
                result = call(*given)
                taken.append(time.thread_time() - began)
                return result

            return run

        with self.loader(resident=True, device=CPU) as loader:
            loader._prepare = timed(loader._prepare, prepares)  # type: ignore[method-assign]
            load = timed(self.minibatches(loader).__next__, trains)
            for _ in range(_STEPS):
                load()
        return statistics.median(trains), statistics.median(prepares)

    def update(self) -> Counts:
        """Count an update: its launches on the CPU, and its copies and waits on the meta device."""
        with patch.object(resnet, "_LAUNCH_BOUND_DEVICES", ("cpu",)):  # as on a GPU
            launches = count(self.updates(self.algorithm("bf16"), CPU), CPU).launches
        with patch.object(recipe, "_FUSED", ()):  # PyTorch's fused optimizers do not support the meta device
            update = self.updates(self.algorithm("fp32").to(META), META)
        return count(update, META)._replace(launches=launches)

    def updates(self, algorithm: Algorithm, device: torch.device) -> Callable[[], object]:
        """Return a function that updates an algorithm on a device, always with the same minibatches and seed."""
        size = self.hparams["image_size"]
        x = torch.rand(_ROWS, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
        minibatches = [(x, torch.arange(_ROWS, device=device) % self.dataset.num_classes) for _ in range(3)]

        def update() -> None:
            seed_everything(3)
            algorithm.update(minibatches)

        update()
        return update

    def evaluation(self) -> Counts:
        """Count a batch of the evaluation."""
        with self.loader(resident=True) as loader:
            evaluator = Evaluator(self.spec, loader, evaluated_splits(self.spec, self.splits), META)
            evaluator.batch_size = 8
            outputs = evaluator.outputs(self.algorithm("fp32").to(META), 0, list(evaluator.splits))
            return count(lambda: next(outputs), META)


def weights_file(backbone: str, folder: Path) -> Path:
    """Write random weights; freezing BatchNorm asks for weights."""
    file = folder / f"{backbone}.pth"
    if not file.exists():
        torch.save(torchvision.models.get_model(backbone, weights=None).state_dict(), file)
    return file


def images_folder(folder: Path, size: int) -> Path:
    """Write 4 environments x 7 classes x 10 images, of one to two times a size; return the data folder."""
    random = np.random.default_rng(0)
    for environment, label, number in product(dataset_facts("PACS").names, range(7), range(10)):
        height, width = random.integers(size, 2 * size, size=2)
        file = folder / f"data{size}" / "PACS" / environment / f"class{label}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            Image.fromarray(random.integers(0, 256, size=(height, width, 3), dtype=np.uint8)).save(file)
    return folder / f"data{size}"


def main() -> None:
    """Print the counts as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("algorithms", nargs="*", default=["ERM"], metavar="ALGORITHM", help="default: ERM")
    parser.add_argument("--backbone", choices=("resnet18", "resnet50"), default="resnet50")
    parser.add_argument("--batch_size", type=int, default=32, metavar="N", help="of one environment (default: 32)")
    options = parser.parse_args()
    print(f"{options.backbone}, 3 x {options.batch_size} images a step, torch {torch.__version__}\n")
    print("| part | launches | copies | waits |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        first = Step("ERM", options.backbone, options.batch_size, Path(folder))
        parts = {"data, on the GPU": first.data, "data, in files": lambda: first.data(resident=False)}
        parts["evaluation, a batch"] = first.evaluation
        for name in options.algorithms:
            parts[f"update, {name}"] = Step(name, options.backbone, options.batch_size, Path(folder)).update
        for title, part in parts.items():
            print(f"| {title} | {' | '.join(f'{number:,}' for number in part())} |", flush=True)
        tiny = Step("ERM", options.backbone, options.batch_size, Path(folder), _TINY)
        trains, prepares = (1e3 * seconds for seconds in tiny.host_seconds())
        print(f"\nhost, data of a step: {trains:.1f} ms in the thread that trains, {prepares:.1f} ms in another")


if __name__ == "__main__":
    main()
