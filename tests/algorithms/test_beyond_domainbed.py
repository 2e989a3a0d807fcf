"""Methods that are not in DomainBed, compared with their definitions."""

from itertools import pairwise
from math import log

import numpy as np
import pytest
import torch
from support import make_algorithm, make_minibatches
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from dg_batchformer.algorithms import cutmix
from dg_batchformer.algorithms.cutmix import cut_box, paste
from dg_batchformer.errors import InputError
from dg_batchformer.networks.cnn import TinyCnn
from dg_batchformer.training.loop import seed_everything


class Quadratic(nn.Module):
    """A loss surface in closed form, w A w / 2, for any input."""

    curvature = torch.tensor([[3.0, 1.0], [1.0, 2.0]])

    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([2.0, -1.0]))

    def forward(self, x):
        return self.weights @ self.curvature @ self.weights / 2


def _on_a_quadratic(name, **hparams):
    """Update once; return the weights before, and the network with the gradient of the step."""
    algorithm = make_algorithm(name, dataset="Toy", **hparams)
    algorithm.network = Quadratic()
    algorithm.optimizer = torch.optim.SGD(algorithm.network.parameters(), lr=0.1)
    algorithm.risk = lambda value, y, num_domains: value
    before = algorithm.network.weights.detach().clone()
    metrics = algorithm.update(make_minibatches(dataset="Toy"))
    return before, algorithm.network, metrics


def test_sam_steps_from_the_old_weights_along_the_gradient_at_the_perturbed_weights():
    w, network, metrics = _on_a_quadratic("SAM", rho=0.5)

    g = network.curvature @ w  # (5, 0)
    top = w + 0.5 * g / 5.0
    assert_close(network.weights.grad, network.curvature @ top)
    assert_close(network.weights.detach(), w - 0.1 * network.curvature @ top)
    assert_close(metrics["perturbed_loss"], top @ network.curvature @ top / 2)


def test_sagm_steps_along_the_mean_of_the_gradients_at_the_weights_and_at_the_perturbed_weights():
    w, network, _ = _on_a_quadratic("SAGM", rho=0.5, alpha=0.01)

    g = network.curvature @ w
    moved = w + (0.5 / 5.0 - 0.01) * g
    assert_close(network.weights.grad, (g + network.curvature @ moved) / 2)


def test_sagm_with_the_two_distances_equal_is_gradient_descent():
    w, network, _ = _on_a_quadratic("SAGM", rho=0.05, alpha=0.01)  # the gradient's norm is 5

    assert_close(network.weights.grad, network.curvature @ w)


def test_gsam_also_descends_along_the_part_of_the_gradient_that_is_orthogonal_to_the_perturbed_one():
    w, network, _ = _on_a_quadratic("GSAM", rho=0.5, alpha=0.3)

    g = network.curvature @ w  # (5, 0)
    p = network.curvature @ (w + 0.5 * g / 5.0)  # (6.5, 0.5)
    orthogonal = g - (g @ p) / (p @ p) * p
    assert_close(orthogonal @ p, torch.tensor(0.0), rtol=0, atol=1e-6)
    assert_close(network.weights.grad, p - 0.3 * orthogonal)


WITHOUT_THEIR_TERM = {
    "SAM": {"rho": 0}, "SAGM": {"rho": 0, "alpha": 0}, "GSAM": {"rho": 0, "alpha": 0}, "MIRO": {"ld": 0},
    "RIDG": {"ridg_reg": 0}, "LFME": {"lfe_reg": 0}, "GGA": {"gga_start_step": 9},
}  # fmt: skip


@pytest.mark.parametrize(("name", "still"), WITHOUT_THEIR_TERM.items())
@pytest.mark.parametrize("suffix", ["", "+BF"])
def test_a_method_without_its_own_term_equals_erm_including_batchformers_dropout(name, still, suffix):
    states = []
    for full, hparams in ((f"ERM{suffix}", {}), (f"{name}{suffix}", still)):
        algorithm = make_algorithm(full, **hparams)
        for seed in range(2):
            seed_everything(seed)
            algorithm.update(make_minibatches(seed=seed))
        states.append(algorithm.predictor.state_dict())

    assert_close(states[1], states[0], rtol=0, atol=1e-6)


def test_both_passes_of_sam_use_the_same_dropout_and_both_streams():
    sam, erm = make_algorithm("SAM+BF", rho=0.2), make_algorithm("ERM+BF", lr=0.0)
    minibatches = make_minibatches()

    def gradient():
        seed_everything(0)  # the same dropout
        erm.update(minibatches)
        return [parameter.grad.clone() for parameter in erm.inner.network.parameters()]

    first = gradient()
    norm = torch.sqrt(sum(part.square().sum() for part in first))
    with torch.no_grad():
        for parameter, part in zip(erm.inner.network.parameters(), first, strict=True):
            parameter.add_(0.2 * part / norm)
    seed_everything(0)
    sam.update(minibatches)

    assert len(list(sam.inner.featurizer.batchformer.parameters())) == 12  # both passes include the encoder
    assert_close([parameter.grad for parameter in sam.inner.network.parameters()], gradient(), rtol=1e-3, atol=1e-6)


def test_batch_norm_sees_only_the_first_pass_of_sam():
    statistics = []
    for name in ("ERM", "SAM"):
        algorithm = make_algorithm(name, backbone="wrn16_2")
        algorithm.update(make_minibatches(n=2))
        statistics.append(algorithm.featurizer.bn1.running_mean)

    assert_close(statistics[1], statistics[0])
    assert algorithm.featurizer.bn1.momentum == 0.9


@pytest.mark.parametrize("sizes", [(32, 32), (7, 12), (8,)])
def test_the_share_of_cutmix_is_the_remaining_share_of_the_area(sizes):
    shares = []
    for seed in range(200):
        np.random.seed(seed)
        asked = float(np.random.beta(1, 1))
        box, share = cut_box(sizes, asked)
        x = torch.zeros(2, 3, *sizes)
        x[1] = 1

        pasted = paste(x, torch.tensor([1, 0]), box)

        assert share == pytest.approx(1 - float(pasted[0].mean()))
        assert share == pytest.approx(float(pasted[1].mean()), abs=1e-6)
        assert share >= asked - 1e-6  # more is left at the border
        shares.append(share)
    assert min(shares) < 0.3
    assert max(shares) > 0.95


@pytest.mark.parametrize("name", ["CutMix", "CutMix+BF"])
def test_cutmix_treats_both_streams_of_all_environments_alike(name, monkeypatch):
    hparams = {"bf_layers": 0} if "BF" in name else {}  # twins then equal plain rows, and so do their risks
    algorithm, minibatches = make_algorithm(name, **hparams), make_minibatches()
    x, y = (torch.cat([batch[i] for batch in minibatches]) for i in (0, 1))
    monkeypatch.setattr(np.random, "beta", lambda a, b: 0.75)
    monkeypatch.setattr(np.random, "randint", lambda size: 4)
    monkeypatch.setattr(torch, "randperm", lambda n, **given: torch.arange(n - 1, -1, -1))
    cut, share = x.clone(), 1 - 12 * 12 / 32**2  # sides of 16 around pixel 4, from 0 to 12
    cut[:, :, :12, :12] = x.flip(0)[:, :, :12, :12]
    logits = algorithm.predict(cut)
    expected = share * F.cross_entropy(logits, y) + (1 - share) * F.cross_entropy(logits, y.flip(0))

    loss = algorithm.update(minibatches)["loss"]

    assert_close(loss, expected.detach())


@pytest.mark.parametrize("name", ["BSoftmax+CutMix", "BSoftmax+CutMix+BF"])
def test_a_pasted_label_counts_as_one_of_the_environment_that_it_is_from(name, monkeypatch):
    hparams = {"bf_layers": 0} if "BF" in name else {}  # twins then equal plain rows, and so do their risks
    algorithm, minibatches = make_algorithm(name, **hparams), make_minibatches()
    y, env = torch.cat([y for _, y in minibatches]), torch.arange(3).repeat_interleave(6)
    monkeypatch.setattr(cutmix, "cut_box", lambda sizes, share: ((slice(0), slice(0)), 0.25))  # labels only
    monkeypatch.setattr(torch, "randperm", lambda n, **given: torch.arange(n - 1, -1, -1))
    logits = algorithm.predict(torch.cat([x for x, _ in minibatches]))
    loss_of = algorithm.criterion_inside if name == "BSoftmax+CutMix" else algorithm.inner.criterion_inside
    expected = 0.25 * loss_of(logits, y, env) + 0.75 * loss_of(logits, y.flip(0), env.flip(0))

    assert_close(algorithm.update(minibatches)["loss"], expected.detach())


def test_cutmix_with_probability_zero_is_erm():
    minibatches = make_minibatches()

    assert_close(make_algorithm("CutMix", cutmix_prob=0).update(minibatches), make_algorithm("ERM").update(minibatches))


def _miro(name="MIRO", **hparams):
    """Return MIRO with perturbed weights, and the weights of its oracle."""
    algorithm = make_algorithm(name, backbone="small_cnn", ld=0.3, **hparams)
    inner = algorithm.inner if "+" in name else algorithm
    with torch.no_grad():
        for parameter in [*inner.network.parameters(), *inner.variances.parameters()]:
            parameter.add_(0.05 * torch.randn_like(parameter))
    return algorithm, inner


def _maps(featurizer, x):
    maps = [x]
    for block in featurizer.blocks:
        maps.append(block(maps[-1]))
    return maps[1:]


@pytest.mark.parametrize("name", ["MIRO", "MIRO+BF", "MIRO+BFv2"])
def test_miros_penalty_and_its_gradient_by_hand(name):
    hparams = {"bf_layers": 0} if "BF" in name else {}
    hparams |= {"bfv2_insert": "blocks.0"} if "BFv2" in name else {}
    algorithm, inner = _miro(name, **hparams)
    minibatches = make_minibatches(n=3)
    x, y = (torch.cat([batch[i] for batch in minibatches]) for i in (0, 1))
    penalty = 0.0
    for own, known, raw in zip(
        _maps(inner.featurizer, x), _maps(inner.oracle, x), inner.variances.parameters(), strict=True
    ):
        variance = torch.log1p(raw.exp()) + 1e-5
        assert variance.shape == (1, own.shape[1], 1, 1)
        penalty = penalty + ((own - known) ** 2 / variance + variance.log()).mean() / 2
    expected = F.cross_entropy(algorithm.predict(x), y) + 0.3 * penalty
    trained = [*inner.featurizer.blocks.parameters(), *inner.classifier.parameters(), *inner.variances.parameters()]
    gradients = torch.autograd.grad(expected, trained)

    metrics = algorithm.update(minibatches)

    assert_close(metrics["penalty"], penalty.detach())
    assert_close([parameter.grad for parameter in trained], list(gradients), rtol=1e-3, atol=1e-6)


def test_miros_penalty_uses_plain_rows_with_batchformer_inside_the_featurizer():
    (plain, _), (inside, inner) = _miro(), _miro("MIRO+BFv2", bfv2_insert="blocks.0")
    inner.load_state_dict(plain.state_dict(), strict=False)  # all but BatchFormer
    minibatches = make_minibatches(n=3)

    assert_close(inside.update(minibatches)["penalty"], plain.update(minibatches)["penalty"])


@pytest.mark.parametrize(("dataset", "stages"), [("Shapes", 2), ("Toy", 2)])
def test_miros_oracle_is_the_initial_featurizer_and_does_not_change(dataset, stages):
    algorithm = make_algorithm("MIRO+BF", dataset=dataset)
    oracle = algorithm.inner.oracle
    before = {name: value.clone() for name, value in oracle.state_dict().items()}
    penalties = []
    for seed in range(3):
        algorithm.train()
        penalties.append(algorithm.update(make_minibatches(seed=seed, dataset=dataset))["penalty"])
        algorithm.eval()

    assert_close(penalties[0].item(), stages * log(0.1) / 2)  # no weight has moved yet
    assert penalties[1] != penalties[0]
    assert_close(oracle.state_dict(), before, rtol=0, atol=0)
    algorithm.train()
    assert not any(module.training for module in oracle.modules())
    assert list(algorithm.predictor.state_dict()) == list(make_algorithm("ERM", dataset=dataset).predictor.state_dict())


def test_miros_oracle_starts_from_the_weights_that_a_run_is_given():
    algorithm, given = make_algorithm("MIRO+BF"), make_algorithm("ERM", seed=1)

    algorithm.begin_from(given.predictor.state_dict())

    assert_close(algorithm.inner.oracle.state_dict(), given.featurizer.state_dict(), rtol=0, atol=0)


def test_miros_variances_have_a_learning_rate_of_their_own():
    algorithm = make_algorithm("MIRO", lr=1e-3, lr_mult=10.0)

    assert [group["lr"] for group in algorithm.variance_optimizer.param_groups] == [1e-3 * 10]
    assert [group["lr"] for group in algorithm.optimizer.param_groups] == [1e-3]


def test_miro_refuses_a_featurizer_without_stages(monkeypatch):
    monkeypatch.setattr(TinyCnn, "stages", lambda featurizer: {})
    monkeypatch.setattr(TinyCnn, "head", lambda featurizer, x: x.mean(dim=(2, 3)))

    with pytest.raises(InputError, match="backbone tiny has no stages"):
        make_algorithm("MIRO")


def test_a_larger_penalty_keeps_weights_closer_to_the_oracle():
    distances = []
    for ld in (0.0, 1.0, 100.0):
        algorithm = make_algorithm("MIRO", backbone="small_cnn", ld=ld, lr_mult=0.0)
        for seed in range(6):
            algorithm.update(make_minibatches(seed=seed))
        x = make_minibatches()[0][0]
        maps = zip(_maps(algorithm.featurizer, x), _maps(algorithm.oracle, x), strict=True)
        distances.append(sum((own - known).square().mean().item() for own, known in maps))

    assert all(light > heavy for light, heavy in pairwise(distances))
