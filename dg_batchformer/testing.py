"""Check a plug-in by the contracts that ours are tested by: python -m dg_batchformer.testing MODULE [--data_dir DIR]

Algorithms and wrappers train for a few updates on small random images, alone and composed with BF and SWAD. They must
learn, predict every sample by itself, and resume exactly. Datasets must agree with their facts, backbones with their
number of features, and protocols set hparams that exist. Takes seconds. Compositions that a plug-in refuses are listed
with the reason; launchers and callbacks are only listed, as they act on the world.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from torch import Tensor

from dg_batchformer.algorithms import Algorithm, get_algorithm_class
from dg_batchformer.algorithms.base import TrainingSet, Validation
from dg_batchformer.callbacks.load import callbacks_of
from dg_batchformer.catalog.datasets import dataset_facts
from dg_batchformer.datasets import get_dataset_class
from dg_batchformer.errors import InputError, as_sentence
from dg_batchformer.hparams_registry import default_hparams, resolve_hparams, search_space
from dg_batchformer.networks.backbones import BACKBONES, get_backbone
from dg_batchformer.plugins.load import load_plugins
from dg_batchformer.registry import ALGORITHMS, DATASETS, WRAPPERS
from dg_batchformer.spec.names import module_names
from dg_batchformer.spec.protocols import PROTOCOLS, get_protocol
from dg_batchformer.spec.run import RunRequest
from dg_batchformer.sweep.launchers.base import LAUNCHERS
from dg_batchformer.training import checkpoint
from dg_batchformer.training.loop import seed_everything

_DATASET, _ENVIRONMENTS, _ROWS, _UPDATES = "Shapes", 3, 4, 3
_SHAPE = (3, 32, 32)


class Broken(Exception):
    """A contract that a plug-in breaks; the message says which."""


class Outcome(NamedTuple):
    """The result of checking one name: ``ok``, ``refused``, ``skipped`` or ``FAILED``, and why."""

    status: str
    name: str
    about: str


def check_module(module: str, data_dir: Path | None = None) -> Iterator[Outcome]:
    """Import a plug-in and check everything that it adds; raise InputError if it cannot be imported.

    Args:
        module: as in ``--plugins``.
        data_dir: folder of the data; None leaves out datasets that need files.

    """
    registries: list[Iterable[str]] = [ALGORITHMS, WRAPPERS, DATASETS, BACKBONES, PROTOCOLS, LAUNCHERS]
    known = [set(registry) for registry in registries]
    load_plugins(module_names([module]))
    added = [sorted(set(registry) - before) for registry, before in zip(registries, known, strict=True)]
    algorithms, wrappers, datasets, backbones, protocols, launchers = added
    for name in algorithms:
        for full in (name, f"{name}+BF", f"SWAD+{name}", f"SWAD+{name}+BF"):
            yield _checked(full, partial(check_algorithm, full), may_refuse="+" in full)
    for name in wrappers:
        for full in _around(name):
            yield _checked(full, partial(check_algorithm, full), may_refuse=full != f"{name}+ERM")
    for name in datasets:
        yield _checked(name, partial(check_dataset, name, data_dir), may_refuse=False)
    for name in backbones:
        yield _checked(name, partial(check_backbone, name), may_refuse=True)
    for name in protocols:
        yield _checked(name, partial(check_protocol, name), may_refuse=False)
    for name in [*launchers, *callbacks_of([module])]:
        yield Outcome("ok", name, "is found by name")


def assert_contracts(module: str, data_dir: Path | None = None) -> None:
    """Raise AssertionError with every contract that a plug-in breaks; for the tests of the plug-in."""
    outcomes = list(check_module(module, data_dir))
    assert outcomes, f"{module} adds nothing that can be checked, or was imported as a plug-in before"
    failed = [f"{outcome.name}: {outcome.about}" for outcome in outcomes if outcome.status in ("FAILED", "skipped")]
    assert not failed, "\n".join(failed)


def check_algorithm(name: str) -> str:
    """Check a composed algorithm on random images; return what holds, raise Broken for what does not."""
    algorithm, resumed = _build(name, seed=0), _build(name, seed=1)
    before = [weight.detach().clone() for weight in algorithm.predictor.parameters()]
    keys = list(algorithm.predictor.state_dict())
    _train(algorithm, range(_UPDATES))
    if algorithm.trains and all(map(torch.equal, algorithm.predictor.parameters(), before)):
        raise Broken(f"{_UPDATES} updates change no weight of the predictor")
    _check_predictions(algorithm)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "checkpoint.pt"
        checkpoint.save(file, checkpoint.capture(algorithm))
        checkpoint.restore(resumed, checkpoint.load(file, torch.device("cpu")))
    for one in (algorithm, resumed):
        _train(one, range(_UPDATES, _UPDATES + 2))
    if not _equal(algorithm, resumed):
        raise Broken("a run that is resumed from a checkpoint differs: keep all state in parameters, buffers, numbers")
    algorithm.finalize([])
    if list(algorithm.predictor.state_dict()) != keys:
        raise Broken("finalize changes the names of the predictor's weights")
    return "trains, predicts every sample by itself, resumes exactly"


def check_dataset(name: str, data_dir: Path | None) -> str:
    """Check that a dataset agrees with its facts and loads; return its size, raise Broken for what does not hold."""
    facts = dataset_facts(name)
    if facts.folder and data_dir is None:
        raise LookupError(f"give --data_dir, with the folder {facts.folder}")
    dataset = get_dataset_class(name)(data_dir, [0], default_hparams("ERM", name))
    if tuple(environment.name for environment in dataset) != facts.names:
        found = ", ".join(environment.name for environment in dataset)
        raise Broken(f"its environments are {found}, but FACTS names {', '.join(facts.names)}")
    if facts.num_classes not in (None, len(dataset.classes)):
        raise Broken(f"it has {len(dataset.classes)} classes, but FACTS says {facts.num_classes}")
    for environment in dataset:
        if not len(environment) or not 0 <= min(environment.labels) <= max(environment.labels) < len(dataset.classes):
            raise Broken(f"environment {environment.name} is empty, or has labels that are no class indices")
        if len(environment.load([0]).images) != 1:
            raise Broken(f"environment {environment.name} does not load its first image")
    return f"{sum(map(len, dataset))} images in {len(facts.names)} environments, as its facts say"


def check_backbone(name: str) -> str:
    """Check the output of a backbone on small images; return its width, raise Broken for what does not hold."""
    featurizer = get_backbone(name, _SHAPE).build(_SHAPE, {**default_hparams("ERM", _DATASET), "backbone": name})
    z = featurizer(torch.randn(_ROWS, *_SHAPE))
    if z.shape != (_ROWS, featurizer.n_outputs):
        raise Broken(f"it returns {tuple(z.shape)} for {_ROWS} images, but n_outputs is {featurizer.n_outputs}")
    if not featurizer.stages():
        raise Broken("stages() is empty, so freeze, MixStyle and BFv2 have no place to act")
    return f"{featurizer.n_outputs} features, stages {', '.join(featurizer.stages())}"


def check_protocol(name: str) -> str:
    """Check that a protocol resolves on every kind of data; return its size, raise Broken for what does not hold."""
    protocol = get_protocol(name)
    spaces = [ALGORITHMS[algorithm].search_space("PACS") for algorithm in ALGORITHMS]
    spaces += [WRAPPERS[wrapper].settings("PACS") for wrapper in WRAPPERS]
    spaces += [search_space("ERM", "PACS", protocol=name), search_space("ERM", "Toy", protocol=name)]
    given = [*protocol.defaults, *protocol.photographs, *protocol.draws]
    if unknown := [hparam for hparam in given if not any(hparam in space for space in spaces)]:
        raise Broken(f"it sets {', '.join(unknown)}, which is no hparam of any method")
    for dataset in ("PACS", "Shapes", "Toy"):
        for seed in range(3):
            resolve_hparams(RunRequest(dataset=dataset, protocol=name, hparams_seed=seed).resolve())
    return f"{protocol.steps} steps; sets {', '.join(sorted(set(given))) or 'no hparams'}"


def _checked(name: str, check: Callable[[], str], *, may_refuse: bool) -> Outcome:
    try:
        return Outcome("ok", name, check())
    except Broken as broken:
        return Outcome("FAILED", name, str(broken))
    except LookupError as lack:
        return Outcome("skipped", name, str(lack)) if type(lack) is LookupError else _failed(name, lack)
    except InputError as error:
        return Outcome("refused" if may_refuse else "FAILED", name, str(error))
    except Exception as error:  # of somebody's code
        return _failed(name, error)


def _failed(name: str, error: Exception) -> Outcome:
    return Outcome("FAILED", name, as_sentence(error))


def _around(wrapper: str) -> Iterator[str]:
    """Yield compositions of a wrapper with algorithms that update in different ways, and with our wrappers."""
    yield from (f"{wrapper}+{algorithm}" for algorithm in ("ERM", "Fish", "SAM", "MIRO"))
    taken = WRAPPERS[wrapper].acts_on
    yield from (f"{wrapper}+CORAL+{other}" for other in ("BF", "SWAD") if WRAPPERS[other].acts_on != taken)


def _build(name: str, seed: int) -> Algorithm:
    spec = RunRequest(dataset=_DATASET, algorithm=name, hparams={"backbone": "tiny"}).resolve()
    facts = dataset_facts(_DATASET)
    assert facts.num_classes is not None
    seed_everything(seed)
    algorithm = get_algorithm_class(name)(facts.shape, facts.num_classes, _ENVIRONMENTS, resolve_hparams(spec))
    algorithm.prepare(TrainingSet(torch.full((_ENVIRONMENTS, facts.num_classes), _ROWS), steps=2 * _UPDATES))
    return algorithm


def _batch(seed: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(_ROWS, *_SHAPE, generator=generator), torch.randint(7, (_ROWS,), generator=generator))
        for _ in range(_ENVIRONMENTS)
    ]


def _train(algorithm: Algorithm, steps: Sequence[int]) -> None:
    """Update and evaluate as a run does; raise Broken for a metric that is not finite."""
    algorithm.train()
    for step in steps:
        seed_everything(step)
        algorithm.begin_update(step, 2 * _UPDATES)
        for key, value in algorithm.update(_batch(step)).items():
            if not isfinite(float(value)):
                raise Broken(f"update {step} returns {float(value)} as {key}")
        algorithm.observe(step, Validation(1.0 / (step + 1), 0.5), lambda model: Validation(1.0, 0.5))


def _check_predictions(algorithm: Algorithm) -> None:
    algorithm.eval()
    [(x, _), *_] = _batch(0)
    with torch.no_grad():
        together, alone = algorithm.predict(x), algorithm.predict(x[:1])
    if together.shape != (_ROWS, 7):
        raise Broken(f"predict returns {tuple(together.shape)} for {_ROWS} images of 7 classes")
    if not algorithm.batch_dependent and not torch.allclose(together[:1], alone, atol=1e-4):
        raise Broken("predictions depend on the rest of the batch; set batch_dependent = True if the method means it")


def _equal(one: Algorithm, other: Algorithm) -> bool:
    states = one.predictor.state_dict(), other.predictor.state_dict()
    return all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line for every check; return 1 if one failed, and 2 if the module cannot be imported."""
    parser = argparse.ArgumentParser(
        prog="python -m dg_batchformer.testing", description=(__doc__ or "").split("\n\n")[1]
    )
    parser.add_argument("module", metavar="MODULE", help="plug-in to check, as in --plugins")
    parser.add_argument("--data_dir", type=Path, metavar="DIR", help="folder of the data of its datasets")
    options = parser.parse_args(arguments)
    failed = 0
    try:
        for status, name, about in check_module(options.module, options.data_dir):
            failed += status == "FAILED"
            print(f"{status:<8}{name}: {about}", flush=True)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
