"""Methods that act on gradients of environments, compared with their definitions."""

import copy

import pytest
import torch
from support import make_algorithm, make_minibatches
from torch.nn import functional as F
from torch.testing import assert_close


def _gradients(algorithm, minibatches):
    """Return the stacked gradients of all environments for every parameter of the network."""
    parameters = list(algorithm.network.parameters())
    risks = [F.cross_entropy(algorithm.predict(x), y) for x, y in minibatches]
    by_env = [torch.autograd.grad(risk, parameters, retain_graph=True, create_graph=True) for risk in risks]
    return [torch.stack(gradients) for gradients in zip(*by_env, strict=True)]


def test_fish_moves_part_of_the_way_of_the_inner_loop_and_keeps_its_adam_state():
    algorithm = make_algorithm("Fish", dataset="Toy", meta_lr=0.25, lr=1e-2)
    walker = copy.deepcopy(algorithm.network)
    adam = torch.optim.Adam(walker.parameters(), lr=1e-2)

    for seed in range(3):
        minibatches = make_minibatches(dataset="Toy", seed=seed)
        start = copy.deepcopy(algorithm.network.state_dict())
        walker.load_state_dict(start)
        for x, y in minibatches:
            adam.zero_grad()
            F.cross_entropy(walker(x), y).backward()
            adam.step()
        algorithm.update(minibatches)

        end = walker.state_dict()
        expected = {name: start[name] + 0.25 * (end[name] - start[name]) for name in start}
        assert_close(algorithm.network.state_dict(), expected)


@pytest.mark.parametrize("tau", [0.3, 1.0])
def test_andmask_zeroes_disagreeing_gradients_and_scales_up_the_others(tau):
    algorithm, minibatches = make_algorithm("ANDMask", dataset="Toy", tau=tau), make_minibatches(dataset="Toy")
    expected = []
    for gradients in _gradients(algorithm, minibatches):
        agreement = gradients.sign().sum(dim=0).abs() / 3  # 1, or 1/3 where one of three disagrees
        kept = (agreement >= tau).double()
        expected.append((gradients.mean(dim=0) * kept / (kept.mean() + 1e-10)).float().detach())
        assert (agreement < 1).any()

    algorithm.update(minibatches)

    assert_close([parameter.grad for parameter in algorithm.network.parameters()], expected)


def test_sandmask_with_tau_1_updates_only_weights_whose_signs_all_agree():
    algorithm, minibatches = make_algorithm("SANDMask", dataset="Toy", tau=1.0), make_minibatches(dataset="Toy")
    agrees = [gradients.sign().sum(dim=0).abs() == 3 for gradients in _gradients(algorithm, minibatches)]
    before = [parameter.detach().clone() for parameter in algorithm.network.parameters()]

    algorithm.update(minibatches)

    for now, then, agreed in zip(algorithm.network.parameters(), before, agrees, strict=True):
        assert torch.equal(now != then, agreed)
    assert sum(agreed.sum() for agreed in agrees) > 0


def test_sandmasks_mask_grows_with_agreement_and_similarity():
    algorithm = make_algorithm("SANDMask", dataset="Toy", tau=0.0, k=0.1)
    gradients = torch.tensor([[1.0, 1.0, 1.0], [1.0, 3.0, 1.0], [1.0, 2.0, -1.0]])  # equal, similar, one disagrees

    mask = algorithm.mask(gradients)

    assert_close(mask, torch.tensor([1.0, 0.1, 0.1 / (4 / 3) / 3]).tanh().where(torch.tensor([False, True, True]), 1.0))


def test_iga_penalises_the_distances_of_gradients_to_their_mean():
    algorithm = make_algorithm("IGA", dataset="Toy", penalty=7.0)
    minibatches = make_minibatches(dataset="Toy")
    gradients = _gradients(algorithm, minibatches)
    penalty = sum((by_env - by_env.mean(dim=0)).square().sum() for by_env in gradients)
    risk = torch.stack([F.cross_entropy(algorithm.predict(x), y) for x, y in minibatches]).mean()
    parameters = list(algorithm.network.parameters())
    expected = torch.autograd.grad(risk + 7 * penalty, parameters)

    metrics = algorithm.update(minibatches)

    assert_close(metrics["penalty"], penalty.detach())
    assert_close([parameter.grad for parameter in parameters], list(expected))


@pytest.mark.parametrize("nonlinear", [False, True])
def test_fishrs_variances_equal_those_of_explicit_per_sample_gradients(nonlinear):
    algorithm = make_algorithm("Fishr", dataset="Toy", ema=0.9, nonlinear_classifier=nonlinear)
    remembered = torch.zeros(3, 1)

    for seed in range(2):
        minibatches = make_minibatches(dataset="Toy", seed=seed)
        variances = torch.stack([_variance(algorithm, x, y) for x, y in minibatches])
        remembered = 0.9 * remembered + 0.1 * variances
        unbiased = remembered / 0.1
        metrics = algorithm.update(minibatches)

        assert_close(metrics["penalty"], (unbiased - unbiased.mean(dim=0)).square().mean(), rtol=1e-4, atol=1e-8)


def _variance(algorithm, x, y):
    """Return the variance of the classifier's gradients, with one backward pass per sample."""
    parameters = list(algorithm.classifier.parameters())
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(F.cross_entropy(algorithm.predict(a), b), parameters)])
        for a, b in zip(x.split(1), y.split(1), strict=True)
    ]
    return torch.stack(rows).var(dim=0, correction=0)


def test_fishrs_penalty_starts_at_its_update_and_adam_is_reset():
    algorithm = make_algorithm("Fishr", dataset="Toy", penalty_anneal_iters=2, **{"lambda": 50.0})
    weights, optimizers = [], []
    for seed in range(4):
        metrics = algorithm.update(make_minibatches(dataset="Toy", seed=seed))
        weights.append(((metrics["loss"] - metrics["nll"]) / metrics["penalty"]).item())
        optimizers.append(algorithm.optimizer)

    assert weights == pytest.approx([0, 0, 50, 50], rel=1e-2)
    assert optimizers[0] is optimizers[1] is not optimizers[2] is optimizers[3]
