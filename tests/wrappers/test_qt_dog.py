"""QT-DoG: levels, the straight-through estimator, and what is evaluated and kept."""

import pytest
import torch
from support import make_algorithm, make_minibatches
from torch import nn
from torch.testing import assert_close

from dg_batchformer.algorithms.base import TrainingSet
from dg_batchformer.errors import InputError
from dg_batchformer.training.loop import seed_everything
from dg_batchformer.wrappers.qt_dog import quantized, step_size


def _convolutions(algorithm):
    return [module.weight for module in algorithm.predictor.modules() if isinstance(module, nn.Conv2d)]


def test_weights_are_rounded_to_levels_and_clipped_at_the_last():
    weights, step = torch.tensor([[0.26, -0.24, 9.0, -9.0]]), torch.tensor([[0.5]])

    assert_close(quantized(weights, step, bits=3), torch.tensor([[0.5, -0.0, 1.5, -2.0]]))


def test_every_output_channel_has_a_step():
    weights = torch.stack([torch.full((2, 3, 3), 1.0), torch.full((2, 3, 3), 2.0), torch.zeros(2, 3, 3)])
    step = step_size(weights, bits=7)

    assert step.shape == (3, 1, 1, 1)
    assert_close(step.flatten()[:2], torch.tensor([2.0, 4.0]) / 63**0.5)
    assert torch.isfinite(quantized(weights, step, bits=7)).all()


def test_it_begins_after_a_share_of_the_updates_and_then_networks_hold_few_levels():
    plain, wrapped = make_algorithm("ERM"), make_algorithm("QTDoG", qt_bits=3, qt_start=0.5)
    wrapped.prepare(TrainingSet(torch.ones(3, 7), steps=4))
    levels = []
    for seed in range(4):
        for algorithm in (plain, wrapped):
            seed_everything(seed)
            algorithm.update(make_minibatches(seed=seed))
        levels.append(max(len(channel.unique()) for weight in _convolutions(wrapped) for channel in weight.detach()))
        if seed == 1:
            assert_close(wrapped.predictor.state_dict(), plain.predictor.state_dict())

    assert min(levels[:2]) > 8 >= max(levels[2:])


def test_the_latent_weights_move_by_the_gradient_at_the_quantized_ones():
    wrapped = make_algorithm("QTDoG", qt_bits=4, qt_start=0, optimizer="sgd", momentum=0.0, lr=0.1)
    reference = make_algorithm("ERM", optimizer="sgd", momentum=0.0, lr=0.1)
    before = [weight.detach().clone() for weight in _convolutions(wrapped)]
    reference.load_state_dict(wrapped.inner.state_dict())
    for weight, value in zip(_convolutions(reference), before, strict=True):
        weight.data = quantized(value, step_size(value, 4), 4)
    minibatches = make_minibatches()
    wrapped.update(minibatches)
    reference.update(minibatches)

    for latent, weight, value in zip(wrapped.latent, _convolutions(reference), before, strict=True):
        assert_close(latent.detach(), value - 0.1 * weight.grad, rtol=1e-4, atol=1e-6)


def test_the_model_that_is_evaluated_and_returned_is_quantized_also_under_batchformer():
    wrapped = make_algorithm("QTDoG+BF", qt_bits=2, qt_start=0)
    wrapped.update(make_minibatches())

    for weight in _convolutions(wrapped.finalize([])):
        assert max(len(channel.unique()) for channel in weight.detach()) <= 4


def _levels(module):
    weights = [part.weight.detach() for part in module.modules() if isinstance(part, nn.Conv2d)]
    return max(len(channel.unique()) for weight in weights for channel in weight)


def test_only_the_network_that_is_trained_to_classify_is_quantized():
    miro, averaged = (make_algorithm(f"QTDoG+{name}", qt_bits=2, qt_start=0) for name in ("MIRO", "ERMPlusPlus"))
    oracle = {name: value.clone() for name, value in miro.inner.oracle.state_dict().items()}
    for algorithm in (miro, averaged):
        for seed in range(3):
            algorithm.update(make_minibatches(seed=seed))

    assert _levels(miro.predictor) <= 4
    assert_close(miro.inner.oracle.state_dict(), oracle, rtol=0, atol=0)
    assert _levels(averaged.inner.network) <= 4


def test_networks_without_convolutions_are_refused():
    with pytest.raises(InputError, match="QTDoG quantizes the weights of convolutions, but these are 0%"):
        make_algorithm("QTDoG", dataset="Toy")
