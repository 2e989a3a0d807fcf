"""Minimal algorithms, minibatches and runs for many tests."""

from pathlib import Path
from typing import Any

import torch

from dg_batchformer.algorithms import ALGORITHMS, Algorithm, get_algorithm_class
from dg_batchformer.algorithms.base import TrainingSet
from dg_batchformer.callbacks.base import RunInfo
from dg_batchformer.catalog.datasets import dataset_facts
from dg_batchformer.hparams_registry import resolve_hparams
from dg_batchformer.spec.options import RunOptions
from dg_batchformer.spec.run import RunRequest, RunSpec
from dg_batchformer.storage.folders import RunFolder, State
from dg_batchformer.training.run import train_run
from dg_batchformer.training.run_log import Cache, Watcher

TRAINED = [name for name in ALGORITHMS if ALGORITHMS[name].trains]
Minibatches = list[tuple[torch.Tensor, torch.Tensor]]


class Silence(Watcher):
    """A watcher that stores its calls."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.records: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.lines: list[str] = []
        self.cached = 0

    def begin(self, run: RunInfo) -> None:
        self.starts.append(run.start)

    def step(self, step: int) -> None:
        pass

    def record(self, values: dict[str, Any]) -> None:
        self.records.append(values)

    def line(self, text: str) -> None:
        self.lines.append(text)

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)

    def caching(self, cache: Cache, done: int, total: int) -> None:
        self.cached = done


class Sent:
    """The events that a worker would send to its launcher, as (event, values) without the run's id."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def send(self, event: str, *, run: str, **values: Any) -> None:
        self.sent.append((event, values))


def make_algorithm(
    name: str, *, num_domains: int = 3, dataset: str = "Shapes", seed: int = 0, hparams_seed: int = 0, **hparams: Any
) -> Algorithm:
    """Build an algorithm with the tiny backbone (or an MLP for vectors)."""
    small = {"backbone": "tiny"} if dataset != "Toy" else {"mlp_width": 16}
    spec = resolved(dataset=dataset, algorithm=name, hparams_seed=hparams_seed, hparams={**small, **hparams})
    facts = dataset_facts(dataset)
    torch.manual_seed(seed)
    algorithm_class = get_algorithm_class(name)
    algorithm = algorithm_class(facts.shape, facts.num_classes, num_domains, resolve_hparams(spec))
    counts = torch.arange(1, 1 + num_domains * facts.num_classes).view(num_domains, -1)
    algorithm.prepare(TrainingSet(counts, steps=6))
    return algorithm


def make_minibatches(*, n: int = 6, num_domains: int = 3, dataset: str = "Shapes", seed: int = 0) -> Minibatches:
    """Draw one minibatch per domain with separable classes."""
    facts = dataset_facts(dataset)
    generator = torch.Generator().manual_seed(seed)
    y = [torch.randint(facts.num_classes, (n,), generator=generator) for _ in range(num_domains)]
    prototypes = torch.randn(facts.num_classes, *facts.shape, generator=torch.Generator().manual_seed(99))
    return [
        (prototypes[labels] + 0.3 * torch.randn(n, *facts.shape, generator=generator) + 0.2 * domain, labels)
        for domain, labels in enumerate(y)
    ]


def resolved(*args: Any, **given: Any) -> RunSpec:
    """Return the run that a request with these fields resolves to."""
    return RunRequest(*args, **given).resolve()


def quick_spec(**given: Any) -> RunSpec:
    """Return a run on the Toy vectors that takes about a second."""
    small = {"mlp_width": 16, "batch_size": 8, **given.pop("hparams", {})}
    defaults = {"dataset": "Toy", "protocol": "quick", "steps": 13, "checkpoint_freq": 4, "test_envs": (3,)}
    return resolved(**{**defaults, **given}, hparams=small)


def run_quickly(
    spec: RunSpec,
    path: Path,
    watcher: Any = None,
    stop: Any = lambda: False,
    callbacks: Any = (),
    keep: str = "final",
    **options: Any,
) -> State:
    """Train a run on the CPU."""
    asked, device = RunOptions(keep=keep, **options), torch.device("cpu")
    how = {"device": device, "watcher": watcher or Silence(), "stop": stop, "callbacks": callbacks}
    return train_run(spec, RunFolder(path), asked, **how)
