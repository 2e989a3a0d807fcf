"""Averages leave out the weights that never train, as the average of a frozen weight is the weight itself."""

import copy

import pytest
import torch
from support import make_algorithm, make_minibatches
from torch.testing import assert_close

from dg_batchformer.algorithms.base import Validation
from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.catalog.wrappers import averaging_wrappers
from dg_batchformer.errors import InputError
from dg_batchformer.networks import Featurizer
from dg_batchformer.wrappers.loss_valley import Average


@pytest.fixture
def frozen(tmp_path):
    """Return hparams that freeze the tiny featurizer up to its convolution, or as the caller adds."""
    file = tmp_path / "weights.pth"
    torch.save(Featurizer((3, 32, 32), {"backbone": "tiny", "weights": "none"}).state_dict(), file)
    return {"freeze": "layers.1", "weights": str(file)}


def _all_weights(algorithm):
    return [weight.detach().clone() for weight in algorithm.predictor.parameters()]


@pytest.mark.parametrize("tuned", [{}, {"freeze": "none", "tune": "bias"}, {"freeze": "featurizer", "tune": "head"}])
@pytest.mark.parametrize("name", averaging_wrappers())
def test_an_average_with_frozen_weights_is_that_of_all_weights(name, tuned, frozen, monkeypatch):
    given = {**frozen, **tuned}
    sparse, whole = (make_algorithm(f"{name}+BF", **given, lr=1e-2) for _ in range(2))
    monkeypatch.setattr(whole, "weights", lambda: list(whole.predictor.parameters()))

    for algorithm in (sparse, whole):
        for step in range(6):
            torch.manual_seed(step)
            algorithm.update(make_minibatches(seed=step))
            algorithm.observe(step, Validation(1.0 / (1 + step), 0.5), lambda _: Validation(1.0, 0.5))
        algorithm.finalize([])

    assert 0 < len(sparse.weights()) < len(whole.weights())
    assert_close(_all_weights(sparse), _all_weights(whole), rtol=0, atol=0)


def test_weights_that_are_held_for_a_while_are_averaged(frozen):
    algorithm = make_algorithm("SWAD", **{**frozen, "freeze": "none", "tune": "head_then_all", "head_steps": 2})
    algorithm.begin_update(0, 6)

    assert len(algorithm.weights()) == len(list(algorithm.predictor.parameters()))


def test_a_wrapper_that_changes_frozen_parameters_has_them_averaged(frozen):
    algorithm = make_algorithm("SWAD+QTDoG", **frozen)

    assert len(algorithm.weights()) == len(list(algorithm.predictor.parameters()))


def test_a_teacher_that_no_optimizer_trains_is_averaged(frozen, monkeypatch):
    algorithm = make_algorithm("SWAD", **frozen)
    trained = len(algorithm.weights())
    teacher = copy.deepcopy(algorithm.inner.network).requires_grad_(False)
    monkeypatch.setattr(ERM, "predictor", teacher)

    assert len(algorithm.weights()) == trained
    assert {id(weight) for weight in algorithm.weights()} <= {id(weight) for weight in teacher.parameters()}


def test_a_checkpoint_that_also_averages_frozen_weights_is_refused():
    average = Average()
    average.absorb([torch.ones(2), torch.ones(3)])

    with pytest.raises(InputError, match="averages of 2 tensors, but 1 of them train"):
        average.absorb([torch.ones(2)])
