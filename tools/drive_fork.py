#!/usr/bin/env python3
"""Compare algorithms of a fork with the fork's own loop: tools/drive_fork.py DIR [--algorithms NAME ...]

DIR is a checkout of a fork of DomainBed with ``domainbed/trainer.py``, as SWAD has it. Every algorithm takes six
updates in ``trainer.train`` and here, from equal weights, batches and generators; metrics must be equal to 1e-5. With
--resume, it also trains here as SWAD+NAME+BF, or as SWAD+NAME with the reason why BF is refused, once whole and once
interrupted and resumed; kept weights must be equal to the bit. Exit status 1 if something differs or fails. Networks
have random weights; modules of --stand_in are replaced by empty ones, and CUDA calls do nothing without a GPU.
"""

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import model_zoo

from dg_batchformer.algorithms import ALGORITHMS, get_algorithm_class
from dg_batchformer.errors import InputError
from dg_batchformer.hparams_registry import resolve_hparams
from dg_batchformer.plugins.load import load_plugins
from dg_batchformer.spec.forks import package_of, parse_fork
from dg_batchformer.spec.options import RunOptions
from dg_batchformer.spec.run import RunRequest, RunSpec
from dg_batchformer.storage.folders import RunFolder
from dg_batchformer.training.loop import seed_everything
from dg_batchformer.training.run import train_run
from dg_batchformer.training.run_log import Watcher
from dg_batchformer.training.stop import Interrupted

STEPS, DOMAINS = 6, 3
TOLERANCE = 1e-5
SUMMARY = {"test_in": 0.0, "test_out": 0.0, "train_out": 0.0, "tr_outloss": 0.0}  # what their evaluator returns
NOT_METRICS = {*SUMMARY, "epoch", "step_time", "eval_time", "hparams", "args"}
OF_THEIR_SCRIPT = {"swad": False, "swad_kwargs": {}, "test_batchsize": 4, "indomain_test": 0.0}

Batches = list[list[tuple[Tensor, Tensor]]]  # by step and environment
Metrics = list[dict[str, float]]


class Hparams(dict[str, Any]):
    """Hparams as their script passes them, readable as items and attributes."""

    __getattr__ = dict.__getitem__


def main() -> int:
    """Drive the algorithms, print a line for each, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fork", metavar="DIR")
    parser.add_argument("--algorithms", nargs="+", metavar="NAME", help="as in the fork (default: all)")
    parser.add_argument("--size", type=int, choices=(28, 224), default=28, help="of images, which chooses the network")
    parser.add_argument("--hparams", type=json.loads, default={}, metavar="JSON", help="of both loops")
    parser.add_argument("--theirs", type=json.loads, default={}, metavar="JSON", help="hparams of their loop alone")
    parser.add_argument("--stand_in", nargs="+", default=[], metavar="MODULE", help="modules to replace by empty ones")
    parser.add_argument("--resume", action="store_true", help="also train with SWAD and BF, interrupted and resumed")
    options = parser.parse_args()
    _prepare(options.stand_in)
    fork = parse_fork(f"fork:{options.fork}")
    load_plugins([str(fork)])
    names = [f"{fork.name}/{name}" for name in options.algorithms or ()]
    failures = 0
    for name in names or [name for name in ALGORITHMS if name.startswith(f"{fork.name}/")]:
        spec = RunRequest(
            dataset=f"Debug{options.size}",
            algorithm=name,
            test_envs=(0,),
            steps=STEPS,
            checkpoint_freq=2,
            hparams={"batch_size": 4, **({} if options.size == 28 else {"weights": "none", "freeze_bn": False})}
            | options.hparams,
            plugins=[str(fork)],
        ).resolve()
        said, failed = [], False
        for check in (_compare, _resume) if options.resume else (_compare,):
            try:
                sentence, differs = check(spec, options.theirs)
            except Exception as error:  # whatever the code of a fork raises
                sentence, differs = f"{type(error).__name__}: {' '.join(str(error).split()):.220}", True
            said.append(sentence)
            failed |= differs
        failures += failed
        print(f"{'FAILS' if failed else 'ok':5} {name}: {'; '.join(said)}", flush=True)
    return 1 if failures else 0


def _prepare(stand_ins: Sequence[str]) -> None:
    """Replace missing modules, pretrained weights, CUDA calls without a GPU, and what NumPy no longer has."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    for name in stand_ins:
        sys.modules[name] = ModuleType(name)
    model_zoo.load_url = lambda *_, **__: {}
    np.int = int  # type: ignore[attr-defined]
    if not torch.cuda.is_available():
        torch.Tensor.cuda = nn.Module.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]


def _compare(spec: RunSpec, of_their_loop: Mapping[str, Any]) -> tuple[str, bool]:
    """Return how six updates here differ from those of the fork's loop, and whether they do."""
    facts = spec.facts
    generator = torch.Generator().manual_seed(0)
    hparams = resolve_hparams(spec)
    classes = facts.num_classes
    assert classes is not None
    batches: Batches = [
        [
            (
                torch.randn(hparams["batch_size"], *facts.shape, generator=generator),
                torch.randint(classes, (hparams["batch_size"],), generator=generator),
            )
            for _ in range(DOMAINS)
        ]
        for _ in range(STEPS)
    ]
    kind: Any = get_algorithm_class(spec.algorithm)
    seed_everything(0)
    algorithm = kind(facts.shape, classes, DOMAINS, hparams)
    given = Hparams({**algorithm.hparams, **OF_THEIR_SCRIPT, **of_their_loop})
    ours = []
    for step, minibatches in enumerate(batches):
        seed_everything(step)
        algorithm.begin_update(step, STEPS)
        ours.append({key: float(value) for key, value in algorithm.update(minibatches).items()})
    theirs = _their_metrics(kind, given, batches, facts.shape, classes)
    differences, recorded = [], 0
    for record in theirs:  # a metric is the mean since the last record; some forks record no step 0
        step = int(record.pop("step"))
        means = {key: sum(mine[key] for mine in ours[recorded : step + 1]) / (step + 1 - recorded) for key in record}
        differences += [abs(means[key] - value) / max(1.0, abs(value)) for key, value in record.items()]
        recorded = step + 1
    worst = max(differences)
    registered = kind.checkout.registry.default_hparams(kind.name, spec.dataset)
    changed = [key for key, value in registered.items() if given.get(key, value) != value and key not in spec.hparams]
    note = f" (hparams other than in its registry: {', '.join(changed)})" if changed else ""
    return f"{len(differences)} metrics of {STEPS} updates differ by at most {worst:.1g}{note}", not worst <= TOLERANCE


def _their_metrics(kind: Any, hparams: Hparams, batches: Batches, shape: Sequence[int], classes: int) -> Metrics:
    """Return the metrics that ``trainer.train`` of a fork records, with our batches in place of its data."""
    package = package_of(kind.checkout.fork.folder).name
    trainer = kind.checkout.modules.load(f"{package}.trainer")
    names = [f"env{index}" for index in range(DOMAINS + 1)]
    splits = [(range(8), None) for _ in names]
    loaders = iter(range(DOMAINS))

    def build(*arguments: Any) -> Any:
        seed_everything(0)
        return kind.written(*arguments)

    def load(**_: Any) -> Iterator[dict[str, Tensor]]:
        env = next(loaders)
        for step, minibatches in enumerate(batches):
            if env == 0:  # before everything else of the step
                seed_everything(step)
            yield dict(zip("xy", minibatches[env], strict=True))

    class Dataset(list[str]):
        input_shape, num_classes, N_WORKERS = tuple(shape), classes, 0
        environments = names

    trainer.get_dataset = lambda *_: (Dataset(names), splits, splits)
    trainer.InfiniteDataLoader = load
    trainer.Evaluator = lambda *_, **__: MagicMock(evaluate=lambda _: ({}, dict(SUMMARY)))
    trainer.algorithms = SimpleNamespace(get_algorithm_class=lambda _: build)
    with tempfile.TemporaryDirectory() as folder, kind.checkout.modules.active():
        args = SimpleNamespace(
            algorithm=kind.name,
            trial_seed=0,
            evalmode="fast",
            debug=False,
            out_dir=Path(folder),
            model_save=None,
            tb_freq=STEPS,
            prebuild_loader=False,
        )
        if "logdir" in hparams:
            hparams["logdir"] = Path(folder)
        trainer.train([0], args, hparams, STEPS, 1, MagicMock(), MagicMock())
        records = [json.loads(line) for line in (Path(folder) / "results.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key not in NOT_METRICS} for record in records]


def _resume(spec: RunSpec, _: Mapping[str, Any]) -> tuple[str, bool]:
    """Return whether a run that is interrupted and resumed keeps the weights of a whole one, with SWAD and BF."""
    with tempfile.TemporaryDirectory() as folder:
        name, said = f"SWAD+{spec.algorithm}+BF", ""
        try:
            _train(spec, name, Path(folder) / "whole")
        except InputError as error:
            name, said = f"SWAD+{spec.algorithm}", f"+BF refused: {error}; "
            _train(spec, name, Path(folder) / "plain")
            (Path(folder) / "plain").rename(Path(folder) / "whole.plain")
        whole = Path(folder) / ("whole.plain" if said else "whole")
        asked = iter([False] * 3 + [True])
        try:
            _train(spec, name, Path(folder) / "cut", stop=lambda: next(asked))
            return f"{said}{name} was not interrupted", True
        except Interrupted:
            _train(spec, name, Path(folder) / "cut")
        kept = [torch.load(run / "model.pt", weights_only=True)["predictor"] for run in (whole, Path(folder) / "cut")]
        same = kept[0].keys() == kept[1].keys() and all(torch.equal(kept[0][key], kept[1][key]) for key in kept[0])
    return f"{said}{name} interrupted and resumed {'is equal to the bit' if same else 'DIFFERS'}", not same


def _train(spec: RunSpec, name: str, folder: Path, stop: Any = lambda: False) -> None:
    request = RunRequest(**{**spec.as_dict(), "algorithm": name, "seed": None})
    options = RunOptions(keep="final")
    train_run(request.resolve(), RunFolder(folder), options, device=torch.device("cpu"), watcher=Watcher(), stop=stop)


if __name__ == "__main__":
    sys.exit(main())
