"""Methods that act on risks, logits or weights, compared with their definitions."""

import copy

import pytest
import torch
from support import make_algorithm, make_minibatches
from torch.distributions import Normal
from torch.nn import functional as F
from torch.testing import assert_close

from dg_batchformer.algorithms.eqrm import smooth_quantile
from dg_batchformer.algorithms.mmd import GAMMAS, mmd_distance
from dg_batchformer.algorithms.trm import inverse_hessian_product


def _risks(algorithm, minibatches):
    return torch.stack([F.cross_entropy(algorithm.predict(x), y) for x, y in minibatches])


def _weights(module):
    return [parameter.detach().clone() for parameter in module.parameters()]


def _moved(module, before):
    return [not torch.equal(now, then) for now, then in zip(module.parameters(), before, strict=True)]


def test_sd_descends_the_risk_plus_the_mean_squared_logit():
    algorithm, minibatches = make_algorithm("SD", dataset="Toy", sd_reg=3.0), make_minibatches(dataset="Toy")
    x, y = (torch.cat([batch[part] for batch in minibatches]) for part in (0, 1))
    logits = algorithm.predict(x)
    squares = (logits**2).mean()
    parameters = list(algorithm.network.parameters())
    expected = torch.autograd.grad(F.cross_entropy(logits, y) + 3 * squares, parameters)

    metrics = algorithm.update(minibatches)

    assert_close(metrics["penalty"], squares.detach())
    assert_close([parameter.grad for parameter in parameters], list(expected))


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.75, 0.99])
def test_the_smooth_quantile_has_that_share_of_the_kernel_density_below_it(quantile):
    values = torch.tensor([1.0, 1.2, 4.0], dtype=torch.float64, requires_grad=True)
    width = (1.06 * values.std() * 3**-0.2).item()

    found = smooth_quantile(values, quantile)
    found.backward()

    assert Normal(values.detach(), width).cdf(found.detach()).mean().item() == pytest.approx(quantile, abs=1e-5)
    assert values.grad.sum().item() == pytest.approx(1)  # if all risks grow by one, so does the quantile


@pytest.mark.parametrize("burnin", [2, 1.5])
def test_eqrm_minimises_the_mean_and_then_the_quantile_with_a_new_adam(burnin):
    algorithm = make_algorithm("EQRM", dataset="Toy", eqrm_burnin_iters=burnin, eqrm_quantile=0.9, eqrm_lr=1e-6)
    optimizers, rates = [], []
    for update in range(4):
        minibatches = make_minibatches(dataset="Toy", seed=update)
        risks = _risks(algorithm, minibatches).detach()
        loss = algorithm.update(minibatches)["loss"]
        assert_close(loss, risks.mean() if update < 2 else smooth_quantile(risks, 0.9))
        optimizers.append(algorithm.optimizer)
        rates.append(algorithm.optimizer.param_groups[0]["lr"])

    assert rates == pytest.approx([rates[0]] * 2 + [1e-6] * 2, rel=1e-9)
    assert optimizers[0] is optimizers[1] is not optimizers[2] is optimizers[3]


def test_rdm_matches_the_losses_of_the_worst_domain_with_all_losses():
    given = {"rdm_penalty_anneal_iters": 1, "rdm_lambda": 2.0, "variance_weight": 0.5, "rdm_lr": 1e-7}
    algorithm = make_algorithm("RDM", dataset="Toy", **given)
    for update in range(3):
        minibatches = make_minibatches(dataset="Toy", seed=update)
        losses = torch.stack([F.cross_entropy(algorithm.predict(x), y, reduction="none") for x, y in minibatches])
        losses = losses.detach()
        worst = max(losses, key=torch.mean)
        matching = mmd_distance(worst[:, None], losses.reshape(-1, 1), (1e-4, *GAMMAS))
        variance = losses.var() + worst.var()

        metrics = algorithm.update(minibatches)

        penalties = 2 * matching + 0.5 * variance if update else 0
        assert_close(metrics["matching_penalty"], matching)
        assert_close(metrics["variance_penalty"], variance)
        assert_close(metrics["total_loss"], losses.mean() + penalties)
        assert (algorithm.optimizer.param_groups[0]["lr"] == 1e-7) == (update > 0)


def test_trm_minimises_the_risk_of_the_head_of_each_domain_in_the_other_domains():
    algorithm = make_algorithm("TRM", dataset="Toy", iters=0, cos_lambda=0.0, groupdro_eta=1.0)
    minibatches = make_minibatches(dataset="Toy")
    pairs = [(algorithm.featurizer(x).detach(), y) for x, y in minibatches]
    unfitted = copy.deepcopy(algorithm.heads)

    trm_loss = algorithm.update(minibatches)["trm_loss"]

    transfers = torch.tensor([[F.cross_entropy(head(z), y).item() for z, y in pairs] for head in algorithm.heads])
    apart = 1 - torch.eye(3)
    assert_close(trm_loss, (transfers * apart / 2).sum(dim=1).mean())
    assert_close(algorithm.alpha, apart / 2 * (transfers / 2).exp())  # harder domains have larger weights
    for head, start, (z, y) in zip(algorithm.heads, unfitted, pairs, strict=True):
        assert F.cross_entropy(head(z), y) < F.cross_entropy(start(z), y)


def test_trm_inverts_the_hessian_by_a_neumann_series():
    head, z, y = torch.nn.Linear(3, 2).double(), torch.randn(8, 3).double(), torch.arange(8) % 2
    vector = 0.1 * torch.randn(2, 3).double()  # the series stops where it exceeds 10

    def loss(weight):
        return F.cross_entropy(F.linear(z, weight, head.bias), y)

    hessian = torch.autograd.functional.hessian(loss, head.weight).reshape(6, 6)
    step = torch.eye(6) - hessian
    expected = sum(torch.linalg.matrix_power(step, power) @ vector.flatten() for power in range(11))

    assert_close(inverse_hessian_product(vector, head, z, y).flatten(), expected.detach())
    assert inverse_hessian_product(1e3 * vector, head, z, y).equal(1e3 * vector)


@pytest.mark.parametrize("gda", [False, True])
def test_transfers_adversary_widens_the_gap(gda):
    algorithm = make_algorithm("Transfer", dataset="Toy", delta=10.0, lr_d=0.05, gda=gda, lr=1e-3)
    minibatches = make_minibatches(dataset="Toy")
    before = _weights(algorithm.network)

    algorithm.update(minibatches)

    assert all(_moved(algorithm.network, before))
    assert _gap(algorithm, minibatches, algorithm.adv_classifier) > 1.1 * _gap(algorithm, minibatches)


def test_transfers_adversary_stays_in_a_ball_around_the_classifier():
    algorithm = make_algorithm("Transfer", dataset="Toy", delta=0.3, lr_d=1.0)

    algorithm.update(make_minibatches(dataset="Toy"))

    pairs = zip(algorithm.adv_classifier.parameters(), algorithm.classifier.parameters(), strict=True)
    assert torch.cat([(a - b).flatten() for a, b in pairs]).norm().item() == pytest.approx(0.3, rel=1e-3)


def test_transfers_features_close_the_gap():
    minibatches = make_minibatches(dataset="Toy")
    gaps = []
    for t_lambda in (0.0, 100.0):
        algorithm = make_algorithm("Transfer", dataset="Toy", t_lambda=t_lambda, lr=1e-3)
        algorithm.update(minibatches)
        gaps.append(_gap(algorithm, minibatches))

    assert gaps[1] < gaps[0]


def _gap(algorithm, minibatches, classifier=None):
    """Return the largest difference between domains of the risk of a classifier, by default the algorithm's."""
    classifier = algorithm.classifier if classifier is None else classifier
    risks = [F.cross_entropy(classifier(algorithm.featurizer(x)), y).item() for x, y in minibatches]
    return max(risks) - min(risks)


@pytest.mark.parametrize("lars", [False, True])
def test_erm_plus_plus_trains_the_classifier_first_and_then_everything(lars):
    algorithm = make_algorithm("ERMPlusPlus", dataset="Toy", linear_steps=1, linear_lr=1e-2, lr=1e-2, lars=lars)
    moved = []
    for seed in range(4):
        before = _weights(algorithm.featurizer), _weights(algorithm.classifier)
        algorithm.update(make_minibatches(dataset="Toy", seed=seed))
        parts = zip((algorithm.featurizer, algorithm.classifier), before, strict=True)
        moved.append(tuple(all(_moved(part, then)) for part, then in parts))

    assert moved == [(False, True)] * 2 + [(True, True)] * 2


@pytest.mark.parametrize("suffix", ["", "+BF"])
def test_the_warm_up_of_erm_plus_plus_leaves_no_featurizer_gradients(suffix):
    algorithm = make_algorithm(f"ERMPlusPlus{suffix}", dataset="Toy", linear_steps=1)
    inner = algorithm.inner if suffix else algorithm
    gradients = []
    for seed in range(3):
        algorithm.update(make_minibatches(dataset="Toy", seed=seed))
        gradients.append([parameter.grad is not None for parameter in inner.featurizer.parameters()])

    assert [any(of_update) for of_update in gradients] == [False, False, True]
    assert all(gradients[2])


def test_erm_plus_plus_predicts_with_the_mean_of_the_weights_from_its_step_on():
    algorithm = make_algorithm("ERMPlusPlus", dataset="Toy", linear_steps=0, lr=1e-2)
    algorithm.average_from = 4
    iterates = []
    for seed in range(6):
        algorithm.update(make_minibatches(dataset="Toy", seed=seed))
        iterates.append(_weights(algorithm.network))
        averaged = iterates[2:] if seed >= 3 else iterates[-1:]
        assert_close(_weights(algorithm.predictor), [torch.stack(w).mean(dim=0) for w in zip(*averaged, strict=True)])
