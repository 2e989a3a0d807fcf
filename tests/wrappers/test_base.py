import copy

import pytest
import torch
from support import make_minibatches

from dg_batchformer.algorithms import get_algorithm_class
from dg_batchformer.algorithms.base import TrainingSet, Validation
from dg_batchformer.hparams_registry import default_hparams
from dg_batchformer.registry import WRAPPERS


class Copying(get_algorithm_class("ERM")):
    """Returns another model than it trained, with its own parameters and predictions."""

    def finalize(self, batches):
        other = copy.deepcopy(self)
        other.summary = {"copied": 1}
        return other


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapper_continues_with_the_model_that_its_algorithm_returns(name):
    wrapper = WRAPPERS[name].around(Copying)
    algorithm = wrapper((3, 32, 32), 7, 3, {**default_hparams(f"{name}+ERM", "Shapes"), "backbone": "tiny"})
    trained = algorithm.inner
    algorithm.prepare(TrainingSet(torch.full((3, 7), 5), steps=6))
    algorithm.update(make_minibatches())
    algorithm.observe(0, Validation(1.0, 0.5), lambda model: Validation(1.0, 0.5))

    model = algorithm.finalize([])

    assert model.inner is not trained
    assert model.summary["copied"] == 1
    x = make_minibatches()[0][0]
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.zero_()
    assert model.eval().predict(x).abs().sum() > 0
