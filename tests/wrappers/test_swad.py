import random

import pytest
import torch
from support import make_algorithm, make_minibatches
from torch.optim.swa_utils import AveragedModel
from torch.testing import assert_close

from dg_batchformer.algorithms.base import Validation
from dg_batchformer.catalog.wrappers import averaging_wrappers
from dg_batchformer.wrappers.swad import loss_valley_weights

LOSSES = [2.0, 1.0, 0.30, 0.31, 0.32, 0.33]


def _weights(algorithm):
    return [parameter.detach().clone() for parameter in algorithm.predictor.parameters()]


def _train(algorithm, every=3, losses=LOSSES, accuracies=None, evaluate=None):
    """Train with given validation losses; return the mean weights of every segment."""
    segments, iterates = [], []
    for step in range(1 + every * (len(losses) - 1)):
        torch.manual_seed(step)
        algorithm.update(make_minibatches(seed=step))
        iterates.append(_weights(algorithm))
        if step % every == 0:
            index = step // every
            accuracy = accuracies[index] if accuracies else 0.5
            algorithm.observe(step, Validation(losses[index], accuracy), evaluate)
            segments.append([torch.stack(tensors).mean(dim=0) for tensors in zip(*iterates, strict=True)])
            iterates = []
    return segments


@pytest.mark.parametrize("name", ["SWAD", "SWAD+BF", "SWAD+DANN+BF"])
@pytest.mark.parametrize("mode", ["exact", "clean"])
def test_the_final_weights_are_the_weighted_mean_of_stored_iterates(name, mode):
    algorithm = make_algorithm(name, swad_mode=mode)
    segments = _train(algorithm)
    shares = loss_valley_weights(LOSSES, mode=mode, iterates=[1, 3, 3, 3, 3, 3])
    expected = [
        sum(share * tensor for share, tensor in zip(shares, tensors, strict=True))
        for tensors in zip(*segments, strict=True)
    ]

    algorithm.finalize([])

    assert_close(_weights(algorithm), expected)
    assert algorithm.summary["averaged_to"] == 15
    assert algorithm.summary["valley_threshold"] == pytest.approx(0.31 * 1.3)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("mode", ["exact", "clean"])
def test_training_averages_the_segments_that_the_function_selects_from_the_whole_curve(mode, seed):
    rng = random.Random(seed)
    for _ in range(4):
        losses = [rng.choice([0.3, 0.31, 0.35, 0.5, 0.6, 0.9]) for _ in range(rng.randint(1, 16))]
        n_converge, n_tolerance = rng.randint(1, 4), rng.randint(1, 5)
        asked = {"swad_mode": mode, "swad_n_converge": n_converge, "swad_n_tolerance": n_tolerance}
        algorithm = make_algorithm("SWAD", dataset="Toy", swad_tolerance_ratio=0.1, lr=1e-2, **asked)
        iterates = [rng.randint(1, 3) for _ in losses]
        shares = loss_valley_weights(losses, n_converge, n_tolerance, 0.1, mode, iterates)
        expected = [torch.zeros_like(tensor) for tensor in _weights(algorithm)]
        for loss, share, updates in zip(losses, shares, iterates, strict=True):
            if algorithm.finished:
                assert share == 0
                continue
            for _ in range(updates):
                algorithm.update(make_minibatches(dataset="Toy", seed=algorithm.updates))
                torch._foreach_add_(expected, _weights(algorithm), alpha=share / updates)
            algorithm.observe(algorithm.updates, Validation(loss, 0.5), None)

        algorithm.finalize([])

        assert_close(_weights(algorithm), expected, rtol=1e-4, atol=1e-5)


def test_a_segment_equals_torchs_averaged_model():
    algorithm = make_algorithm("SWAD")
    algorithm.update(make_minibatches())
    oracle = AveragedModel(algorithm.predictor)
    oracle.update_parameters(algorithm.predictor)
    for seed in range(1, 5):
        algorithm.update(make_minibatches(seed=seed))
        oracle.update_parameters(algorithm.predictor)

    assert_close(algorithm.segment.tensors, [parameter.detach() for parameter in oracle.module.parameters()])


def test_training_ends_when_the_valley_is_dead():
    algorithm = make_algorithm("SWAD")
    _train(algorithm, every=1, losses=[0.30, 0.31, 0.32, *[9.0] * 5])
    assert not algorithm.finished
    algorithm.update(make_minibatches())
    algorithm.observe(8, Validation(9.0, 0.5), None)

    assert algorithm.finished


@pytest.mark.parametrize("name", averaging_wrappers())
def test_batch_norm_of_averages_is_reestimated_unless_frozen(name):
    algorithm = make_algorithm(name, backbone="wrn16_2")
    _train(algorithm, losses=[1.0], evaluate=lambda model: Validation(1.0, 0.5))
    x = make_minibatches(seed=5)[0][0]

    algorithm.finalize([x])

    expected = algorithm.inner.featurizer.conv1(x).mean(dim=(0, 2, 3))
    assert_close(algorithm.inner.featurizer.layer1[0].bn1.running_mean, expected, rtol=1e-4, atol=1e-5)


def test_iidmax_averages_from_the_best_accuracy_and_returns_the_average_that_validates_best():
    algorithm = make_algorithm("IIDMax")
    seen = []

    def evaluate(model):
        seen.append(_weights(model))
        return Validation(0.0, [0.1, 0.2, 0.9, 0.3][len(seen) - 1])

    segments = _train(algorithm, every=2, losses=[1.0] * 4, accuracies=[0.5, 0.8, 0.7, 0.6], evaluate=evaluate)
    last = _weights(algorithm)
    assert_close(seen[0], segments[0])
    assert_close(seen[1], segments[1])
    assert_close(seen[2], [(a + b) / 2 for a, b in zip(segments[1], segments[2], strict=True)])

    algorithm.finalize([])

    assert_close(_weights(algorithm), seen[2])
    assert not torch.equal(last[0], seen[2][0])
    assert (algorithm.summary["averaged_from"], algorithm.summary["averaged_to"]) == (1, 4)


def test_evaluating_an_average_does_not_change_training():
    algorithm = make_algorithm("IIDMax")
    algorithm.update(make_minibatches())
    algorithm.update(make_minibatches(seed=1))
    before = _weights(algorithm)

    algorithm.observe(1, Validation(1.0, 0.5), lambda model: Validation(1.0, 0.5))

    assert_close(_weights(algorithm), before, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["SWAD+ERM", "SWAD+ERM+BF", "SWAD+QTDoG+MixStyle+BF"])
def test_the_parameters_that_are_averaged_are_searched_for_once(name):
    algorithm = make_algorithm(name)

    assert algorithm.weights() is algorithm.weights()
    assert [p.shape for p in algorithm.weights()] == [p.shape for p in algorithm.predictor.parameters()]
