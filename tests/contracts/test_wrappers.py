"""Properties of every registered wrapper around algorithms of every kind; ``make test-all`` uses all algorithms."""

import pytest
import torch
from support import TRAINED, make_algorithm, make_minibatches
from torch.testing import assert_close

from dg_batchformer.algorithms import ALGORITHMS
from dg_batchformer.algorithms.base import Validation
from dg_batchformer.catalog.wrappers import averaging_wrappers
from dg_batchformer.networks.batchformer import batchformers
from dg_batchformer.registry import WRAPPERS
from dg_batchformer.spec.names import canonical_name
from dg_batchformer.training import checkpoint
from dg_batchformer.training.loop import seed_everything

# One for every way to update; each is also combined with BatchFormer.
KINDS = ("ADRMX", "CutMix", "ERMPlusPlus", "Fish", "MIRO", "SAGM")
# ``make test`` runs SWAD and BF around every algorithm elsewhere.
NEW = [name for name in WRAPPERS if name not in ("BF", "SWAD")]


def _cases():
    for base in TRAINED:
        for turn, wrapper in enumerate(NEW):
            joins_bf = WRAPPERS[wrapper].acts_on != WRAPPERS["BF"].acts_on and (turn + list(ALGORITHMS).index(base)) % 2
            name = f"{wrapper}+{base}" + "+BF" * joins_bf
            quick = base in KINDS and (WRAPPERS[wrapper].acts_on != "risk" or (turn + KINDS.index(base)) % 3 == 0)
            yield pytest.param(name, marks=[] if quick else [pytest.mark.exhaustive])


def _train(algorithm, updates, first=0):
    for seed in range(first, first + updates):
        seed_everything(seed)
        algorithm.update(make_minibatches(seed=seed, n=4))


def _observe(algorithm, step):
    algorithm.observe(step, Validation(1.0 / (step + 1), 0.5), lambda model: Validation(1.0, 0.5))


@pytest.mark.parametrize("name", list(_cases()))
def test_it_trains_reloads_and_resumes_exactly(name, tmp_path):
    soon = {"linear_steps": 0} if "ERMPlusPlus" in name else {}  # or it trains its classifier alone
    algorithm, fresh = make_algorithm(name, **soon), make_algorithm(name, seed=1, **soon)
    encoder = [parameter.detach().clone() for layer in batchformers(algorithm) for parameter in layer.parameters()]
    _train(algorithm, 2)
    _observe(algorithm, 1)

    checkpoint.save(tmp_path / "c.pt", checkpoint.capture(algorithm))
    checkpoint.restore(fresh, checkpoint.load(tmp_path / "c.pt", torch.device("cpu")))
    for one in (algorithm, fresh):
        _train(one, 2, first=2)
        _observe(one, 3)

    assert_close(algorithm.state_dict(), fresh.state_dict(), rtol=0, atol=0)
    moved = [parameter for layer in batchformers(algorithm) for parameter in layer.parameters()]
    assert bool(encoder) == ("BF" in name)
    assert not any(torch.equal(before, after) for before, after in zip(encoder, moved, strict=True))
    for one in (algorithm, fresh):
        one.finalize([])
    assert_close(algorithm.predictor.state_dict(), fresh.predictor.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("name", WRAPPERS)
def test_its_predictor_is_the_algorithms(name):
    wrapped, plain = make_algorithm(f"{name}+MIRO"), make_algorithm("MIRO")

    assert list(wrapped.predictor.state_dict()) == list(plain.predictor.state_dict())


def test_all_stages_compose_and_the_spelling_does_not_matter():
    for averaging in averaging_wrappers():
        algorithm = make_algorithm(f"{averaging}+MixStyle+SAM+BF")
        _train(algorithm, 1)

        assert type(algorithm).__name__ == canonical_name(f"BF+SAM+{averaging}+MixStyle")
        assert type(algorithm.inner.inner.inner).__name__ == "SAM"
